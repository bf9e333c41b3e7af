# Who takes over looks whether it is an orphan, and then says that it is its own.
/^bool entry_take_over/,/^}/{
s/if (!shm_cas(entry_state_word(peer->segment, name.idx), word,/if (shm_load(entry_state_word(peer->segment, name.idx)) != word)/
s/state_make(name.gen, ENTRY_FILLING, state_flags(word), low)))/return false;/
s/^\t\treturn false;$/\tshm_store(entry_state_word(peer->segment, name.idx), state_make(name.gen, ENTRY_FILLING, state_flags(word), low));/
}
