/* SPDX-License-Identifier: MIT */
/*
 * thread - the threads that the library makes, as coroutines of their process, and
 * what one waits for of another: conditions, and ends (ld --wrap).
 *
 * A process has one at a time. Mutexes are the real ones: none that two threads of a
 * process take is held at a point, so nobody ever finds one taken. A wake-up is never
 * spurious; who waits for one that does not come is found when nobody else can go on.
 */
#include <errno.h>
#include <pthread.h>

#include "explore.h"

int __wrap_pthread_create(pthread_t *ret_thread, const pthread_attr_t *attr,
			  void *(*start)(void *arg), void *arg);
int __wrap_pthread_join(pthread_t number, void **ret_value);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
int __wrap_pthread_cond_signal(pthread_cond_t *condition);

/* What is not explored does without: nobody would run it. */
int __wrap_pthread_create(pthread_t *ret_thread, const pthread_attr_t *attr,
			  void *(*start)(void *arg), void *arg)
{
	struct process *thread;

	(void)attr;
	if (running == NULL)
		return EAGAIN;
	thread = &seats[THREAD_OF(running->number)];
	if (!thread->done)
		return EAGAIN;
	thread->start = start;
	thread->arg = arg;
	thread->awaits = thread->label = NULL;
	thread->done = thread->asleep = false;
	process_make_ready(thread);
	*ret_thread = thread->number;
	return 0;
}

static void await(const void *what)
{
	running->awaits = what;
	running->asleep = true;
	process_point(POINT_PARK, NULL);
}

static void wake(const void *what)
{
	for (unsigned i = 0; i < PARTIES; i++)
		if (seats[i].awaits == what) {
			seats[i].awaits = NULL;
			seats[i].asleep = false;
		}
}

int __wrap_pthread_join(pthread_t number, void **ret_value)
{
	(void)ret_value;
	if (!seats[number].done)
		await(&seats[number]);
	return 0;
}

void thread_ends(const struct process *thread)
{
	wake(thread);
}

int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
	pthread_mutex_unlock(mutex);
	await(condition);
	return pthread_mutex_lock(mutex);
}

int __wrap_pthread_cond_signal(pthread_cond_t *condition)
{
	wake(condition);
	return 0;
}
