# The thread does not say that there is room in the ring again.
/^static void put_pending/,/^}/s/pthread_cond_signal(&compressor->done);//
