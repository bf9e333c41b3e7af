/* SPDX-License-Identifier: MIT */
#include "base/thread.h"

uintptr_t thread_tag(void)
{
	static _Thread_local char tag;

	return (uintptr_t)&tag;
}
