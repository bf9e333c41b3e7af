# Who publishes bytes does not wake those who sleep until there are some.
s/if (unlikely(shm_load(&writer->entry->readers_event) & 1u))/if (0)/
