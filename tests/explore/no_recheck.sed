# A joiner does not look at the state again once its cursor is set.
s/if (state_gen(word) != name.gen || !state_is_findable(word)) {/if (0) {/
