/* SPDX-License-Identifier: MIT */
/*
 * choice - how blobs are stored and verified: options that choose one of a few words,
 * and the variables that stand in for them.
 *
 * Only the words are kept until the cache is opened. So the holder of exec, which opens
 * it anew, does as its caller says.
 */
#include "tool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct word {
	const char *text;
	uint32_t value;
};

static const struct word compressions[] = {
	{ "raw", SCACHE_RAW },
	{ "lz4", SCACHE_LZ4 },
	{ "auto", SCACHE_AUTO },
	{ NULL, 0 },
};

static const struct word levels[] = {
	{ "1", 1 }, { "2", 2 }, { "3", 3 },   { "4", 4 },   { "5", 5 },	  { "6", 6 }, { "7", 7 },
	{ "8", 8 }, { "9", 9 }, { "10", 10 }, { "11", 11 }, { "12", 12 }, { NULL, 0 },
};

static const struct word durabilities[] = {
	{ "none", SCACHE_DURABILITY_NONE },
	{ "data", SCACHE_DURABILITY_DATA },
	{ "full", SCACHE_DURABILITY_FULL },
	{ NULL, 0 },
};

static const struct word verifies[] = {
	{ "restart", SCACHE_VERIFY_RESTART },
	{ "never", SCACHE_VERIFY_NEVER },
	{ "always", SCACHE_VERIFY_ALWAYS },
	{ NULL, 0 },
};

static const struct {
	const char *option, *variable;
	const char *range; /* for people */
	const struct word *words;
} choices[TOOL_CHOICES] = {
	[TOOL_COMPRESS] = { "--compress", "STREAMCACHE_COMPRESS", "raw, lz4 or auto",
			    compressions },
	[TOOL_LEVEL] = { "--level", "STREAMCACHE_LEVEL", "a number from 1 to 12", levels },
	[TOOL_DURABILITY] = { "--durability", "STREAMCACHE_DURABILITY", "none, data or full",
			      durabilities },
	[TOOL_VERIFY] = { "--verify", "STREAMCACHE_VERIFY", "restart, never or always", verifies },
};

static const struct word *find(enum tool_choice choice, const char *text)
{
	const struct word *word = choices[choice].words;

	while (word->text && strcmp(word->text, text))
		word++;
	return word->text ? word : NULL;
}

int choice_take(struct tool *tool, const struct command *command, enum tool_choice choice,
		const char *text)
{
	if (!find(choice, text))
		return tool_usage(command, "%s is %s, not '%s'", choices[choice].option,
				  choices[choice].range, text);
	tool->choices[choice] = text;
	return 0;
}

/* What was said, by option or variable; *ret_value is left alone if nothing was. */
static int settle(const struct tool *tool, enum tool_choice choice, const char *consequence,
		  uint32_t *ret_value)
{
	const char *text = tool->choices[choice], *variable = choices[choice].variable;
	const struct word *word;

	if (!text && !tool->is_config)
		text = getenv(variable);
	if (!text || !*text)
		return 0;
	word = find(choice, text);
	if (!word) {
		tool_error("%s is %s, not '%s'%s%s", variable, choices[choice].range, text,
			   consequence ? "; " : "", consequence ? consequence : "");
		return -EINVAL;
	}
	*ret_value = word->value;
	return 0;
}

const char *choice_text(enum tool_choice choice, uint32_t value)
{
	const struct word *word = choices[choice].words;

	while (word->text && word->value != value)
		word++;
	return word->text ? word->text : "?";
}

int choice_settle(const struct tool *tool, const char *consequence, struct scache_options *options)
{
	/* Who asks for a level wants it compressed. */
	if (tool->choices[TOOL_LEVEL])
		options->compression = SCACHE_LZ4;
	if (settle(tool, TOOL_COMPRESS, consequence, &options->compression) ||
	    settle(tool, TOOL_LEVEL, consequence, &options->level) ||
	    settle(tool, TOOL_DURABILITY, consequence, &options->durability) ||
	    settle(tool, TOOL_VERIFY, consequence, &options->verify))
		return -EINVAL;
	return 0;
}
