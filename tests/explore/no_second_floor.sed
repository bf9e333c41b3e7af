# A reader does not look at `floor` again once it has copied out of the ring.
/^\t\tshm_fence_acquire();/{
n
N
d
}
