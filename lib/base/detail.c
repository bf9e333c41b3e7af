/* SPDX-License-Identifier: MIT */
#include "base/detail.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char detail_text[1024];

int detail_set(int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(detail_text, sizeof(detail_text), format, args);
	va_end(args);
	return error;
}

void detail_clear(void)
{
	detail_text[0] = '\0';
}

const char *detail_get(void)
{
	return detail_text;
}
