/* SPDX-License-Identifier: MIT */
/*
 * terms - what a producer bears of its readers: options of those commands that produce.
 */
#include "tool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int take_policy(const struct command *command, const char *text, uint32_t *ret_policy)
{
	static const char *const policies[] = {
		[SCACHE_STALL_WAIT] = "wait",
		[SCACHE_STALL_ABORT] = "abort",
		[SCACHE_STALL_RUN] = "run",
	};

	for (uint32_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++)
		if (!strcmp(text, policies[i])) {
			*ret_policy = i;
			return 0;
		}
	return tool_usage(command, "--on-stall is wait, abort or run, not '%s'", text);
}

static int take_percent(const struct command *command, const char *text, uint32_t *ret_percent)
{
	char *end;
	unsigned long percent;

	errno = 0;
	percent = strtoul(text, &end, 10);
	if (errno || *text < '0' || *text > '9' || *end || percent < 1 || percent > 100)
		return tool_usage(command, "--finish-percent is a number from 1 to 100, not '%s'",
				  text);
	*ret_percent = (uint32_t)percent;
	return 0;
}

int terms_take(const struct command *command, int c, const char *text,
	       struct scache_acquire_options *acquire)
{
	int status;

	switch (c) {
	case TOOL_OPT_STALL:
		status = tool_time(command, text, &acquire->writer_stall_ns);
		if (!status && acquire->writer_stall_ns == SCACHE_ZERO)
			status = tool_usage(command, "--stall is a time in which a reader can move, as "
						     "30s, or unlimited");
		return status;
	case TOOL_OPT_ON_STALL:
		return take_policy(command, text, &acquire->stall_policy);
	case TOOL_OPT_LINGER:
		return tool_time(command, text, &acquire->linger_ns);
	case TOOL_OPT_FINISH_PERCENT:
		return take_percent(command, text, &acquire->finish_percent);
	case TOOL_OPT_FINISH_BYTES:
		return tool_size(command, text, &acquire->finish_bytes);
	default:
		return TERMS_NOT;
	}
}

int terms_check(const struct command *command, const struct scache_acquire_options *acquire)
{
	if (acquire->stall_policy != SCACHE_STALL_WAIT && !acquire->writer_stall_ns)
		return tool_usage(command, "--on-stall says what happens after --stall, which is missing");
	if ((acquire->finish_percent || acquire->finish_bytes) && !acquire->declared_bytes)
		return tool_usage(command, "--finish-percent and --finish-bytes are parts of --size, "
					   "which is missing");
	return 0;
}
