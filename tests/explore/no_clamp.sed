# Who peeks looks at all that is in the file, published or not.
s/min_u64(shm_load_acquire(&reader->entry->flushed), written)/min_u64(shm_load_acquire(\&reader->entry->flushed), written | UINT64_MAX)/
