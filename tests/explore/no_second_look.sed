# Who gets the lease believes what it saw before the last holder gave up.
s/if (!could && !had_lease)/if (!had_lease \&\& looks > ROOM_LOOKS)/
