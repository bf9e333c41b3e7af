# The charge is made when the budget allows it, and not before it is asked.
/^int limits_reserve/,/^}/{
s/shm_store(charge, bytes);/(void)charge;/
s/return spend(store, &taker, bytes - before);/{ int ret = spend(store, \&taker, bytes - before); if (ret == 0) shm_store(charge, bytes); return ret; }/
}
