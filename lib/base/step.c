/* SPDX-License-Identifier: MIT */
#include "base/step.h"

#ifdef SCACHE_STEPS
#include <stdatomic.h>
#include <stddef.h>

static _Atomic(void (*)(const char *)) current_hook;

void step_reached(const char *label)
{
	void (*hook)(const char *) = atomic_load(&current_hook);

	if (hook != NULL)
		hook(label);
}

void step_set_hook(void (*hook)(const char *label))
{
	atomic_store(&current_hook, hook);
}
#endif

#ifdef SCACHE_ACCESSES
#include <stdatomic.h>
#include <stddef.h>

static _Atomic(void (*)(const volatile void *)) access_hook;

void access_reached(const volatile void *word)
{
	void (*hook)(const volatile void *) = atomic_load(&access_hook);

	if (hook != NULL)
		hook(word);
}

void access_set_hook(void (*hook)(const volatile void *word))
{
	atomic_store(&access_hook, hook);
}
#endif

/* An empty translation unit is not C. */
typedef int step_may_be_off;
