/* SPDX-License-Identifier: MIT */
#include "base/thread.h"

#include <signal.h>

#include "base/compiler.h"

uintptr_t thread_tag(void)
{
	static _Thread_local char tag;

	return (uintptr_t)&tag;
}

int thread_start(pthread_t *ret_thread, void *(*run)(void *arg), void *arg)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT };
	sigset_t others, before;
	int ret;

	sigfillset(&others);
	for (size_t i = 0; i < ARRAY_COUNT(faults); i++)
		sigdelset(&others, faults[i]);
	pthread_sigmask(SIG_BLOCK, &others, &before);
	ret = pthread_create(ret_thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -ret;
}
