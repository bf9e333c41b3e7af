# Whoever leaves looks whether the production has ended before his cursor is cleared.
s/^\t\tcursor_detach(store->peer, reader->cell, reader->name);/\t\tforked = state_is_growing(shm_load(reader->state));\n&/
s/^\t\tleave_entry(store, reader->name);/\t\tif (!forked)\n\t&\n\t\tforked = false;/
