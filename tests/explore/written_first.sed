# A read looks at `written` before it looks at the state.
/^int reader_ready/,/^}/{
s/uint64_t state = shm_load_acquire(reader->state), written;/uint64_t written = shm_load_acquire(\&reader->entry->written), state = shm_load_acquire(reader->state);/
/^\t\twritten = shm_load_acquire(&reader->entry->written);$/d
}
