/* SPDX-License-Identifier: MIT */
/*
 * step - named points between two stores that other processes can see.
 *
 * A crash test kills a process at each of them and watches the survivors.
 * The comment above a STEP says what is visible by then and who mends it if
 * we die here. Outside the test build (SCACHE_STEPS) it is nothing at all.
 */
#ifndef BASE_STEP_H
#define BASE_STEP_H

#ifdef SCACHE_STEPS
/* step_reached - call the hook, if one is set, with the label. */
void step_reached(const char *label);

/* step_set_hook - @hook is called at every step of this process; NULL = none. */
void step_set_hook(void (*hook)(const char *label));

#define STEP(label) step_reached(label)
#else
#define STEP(label) ((void)0)
#endif

/*
 * ACCESS - the same at the finest grain: before each access to shared memory
 * (shm/atomic.h), in a build with SCACHE_ACCESSES alone.
 */
#ifdef SCACHE_ACCESSES
void access_reached(const volatile void *word);
void access_set_hook(void (*hook)(const volatile void *word));
#define ACCESS(word) access_reached(word)
#else
#define ACCESS(word) ((void)0)
#endif

#endif
