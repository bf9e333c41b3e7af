# Who goes on with a write that had passed the ring leaves the floor where the dead put it.
/^static void settle/,/^}/s/shm_store(&entry->floor, writer->written);/shm_load(\&entry->floor);/
