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
#else
/* An empty translation unit is not C. */
typedef int step_is_off;
#endif
