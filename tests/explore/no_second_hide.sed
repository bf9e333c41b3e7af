# Who removes what is taken over meanwhile does not try again.
/^bool entry_hide_any/,/^}/s/while (state_gen/if (state_gen/
