/* SPDX-License-Identifier: MIT */
/*
 * tool - what the sub-commands of streamcache(1) share.
 *
 * The tool uses the library only through <streamcache.h>. Each sub-command is
 * one file, cmd_<verb>.c, that exports one struct command; streamcache.c holds
 * the table. A command parses its own options with tool_getopt(), which takes
 * the common ones away, and returns the exit status.
 *
 *  text.c      sizes, durations and keys as people write and see them
 *  common.c    options, messages, the cache directory, plain input and output
 *  choice.c    how blobs are stored and verified
 *  settings.c  what is stored with the cache
 *  digest.c    what a blob must be
 *  terms.c     what a producer bears of its readers
 *  stream.c    a reader's bytes to standard output
 *  kept.c      a finished blob's file, and its note
 *  progress.c  the line on a terminal
 *
 * What exec and git-pack-objects are made of:
 *
 *  key.c       finding CMD, keeping its input, exec's default key
 *  share.c     the caller's side of a shared run
 *  holder.c    the process that is elected and produces
 *  run.c       CMD itself, inside the holder
 *  relay.c     CMD's standard error, from the holder to its caller
 *
 * git.h has what is git-pack-objects' alone.
 */
#ifndef TOOL_H
#define TOOL_H

#include <getopt.h>
#include <pthread.h>
#include <stdint.h>
#include <streamcache.h>
#include <sys/types.h>

struct json_object;

#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull
#define TOOL_BUFFER_BYTES (256u << 10)

/* Exit statuses; the table in streamcache(1) is the promise. */
enum tool_exit {
	TOOL_OK = 0,
	TOOL_NO = 1,         /* no such key, violations found, production failed */
	TOOL_USAGE = 2,      /* exec says TOOL_UNUSABLE instead: 2 may be CMD's */
	TOOL_LOST = 124,     /* the producer was lost in mid-stream */
	TOOL_UNUSABLE = 125, /* the cache or standard output cannot be used */
	TOOL_CANNOT_RUN = 126,
	TOOL_NOT_FOUND = 127,
};

/* How blobs are stored and verified; see choice.c. */
enum tool_choice {
	TOOL_COMPRESS,
	TOOL_LEVEL,
	TOOL_DURABILITY,
	TOOL_VERIFY,
	TOOL_CHOICES,
};

enum tool_option {
	TOOL_OPT_CACHE = 256,
	TOOL_OPT_SEGMENT_DIR,
	TOOL_OPT_GROUP,
	TOOL_OPT_JSON,
	TOOL_OPT_HEX,
	TOOL_OPT_HELP,
	TOOL_OPT_CHOICE, /* and one of enum tool_choice */
	/* returned by tool_getopt(): leave with tool->status */
	TOOL_OPT_STOP = TOOL_OPT_CHOICE + TOOL_CHOICES,
	TOOL_OPT_STALL, /* for terms_take(): from here on, */
	TOOL_OPT_ON_STALL,
	TOOL_OPT_LINGER,
	TOOL_OPT_FINISH_PERCENT,
	TOOL_OPT_FINISH_BYTES, /* to here */
	TOOL_OPT_OWN, /* the first of the sub-command's */
};

#define TOOL_OPTIONS                                                                               \
	{ "cache", required_argument, NULL, TOOL_OPT_CACHE },                                      \
	{ "segment-dir", required_argument, NULL, TOOL_OPT_SEGMENT_DIR },                          \
	{ "group", no_argument, NULL, TOOL_OPT_GROUP },                                            \
	{ "help", no_argument, NULL, TOOL_OPT_HELP }
#define TOOL_OPTION_JSON { "json", no_argument, NULL, TOOL_OPT_JSON }
#define TOOL_OPTION_HEX { "hex", no_argument, NULL, TOOL_OPT_HEX }
#define TOOL_OPTIONS_STORE                                                                         \
	{ "compress", required_argument, NULL, TOOL_OPT_CHOICE + TOOL_COMPRESS },                  \
	{ "level", required_argument, NULL, TOOL_OPT_CHOICE + TOOL_LEVEL },                        \
	{ "durability", required_argument, NULL, TOOL_OPT_CHOICE + TOOL_DURABILITY }
#define TOOL_OPTION_VERIFY                                                                         \
	{ "verify", required_argument, NULL, TOOL_OPT_CHOICE + TOOL_VERIFY }
#define TOOL_OPTIONS_STALL                                                                         \
	{ "stall", required_argument, NULL, TOOL_OPT_STALL },                                      \
	{ "on-stall", required_argument, NULL, TOOL_OPT_ON_STALL }
#define TOOL_OPTION_LINGER { "linger", required_argument, NULL, TOOL_OPT_LINGER }
#define TOOL_OPTIONS_FINISH                                                                        \
	{ "finish-percent", required_argument, NULL, TOOL_OPT_FINISH_PERCENT },                    \
	{ "finish-bytes", required_argument, NULL, TOOL_OPT_FINISH_BYTES }
#define TOOL_OPTION_END { NULL, 0, NULL, 0 }

#define TOOL_HELP_COMMON                                                                           \
	"  --cache=DIR        the cache's directory\n"                                             \
	"  --segment-dir=DIR  where the shared segment is made\n"                                  \
	"  --group            share the cache with the directory's group\n"                        \
	"  --help             this text\n"
#define TOOL_HELP_STORE                                                                            \
	"  --compress=HOW     store it raw (the default), as lz4, or as lz4 if it gets\n"          \
	"                     shorter by it: auto\n"                                              \
	"  --level=N          of lz4: 1 to 12, more is slower and smaller\n"                       \
	"  --durability=WHAT  of what is stored: none (the kernel has it), data (it is on\n"       \
	"                     the disk), full (so is its name: it survives a power cut)\n"
#define TOOL_HELP_VERIFY                                                                           \
	"  --verify=WHEN      compare with the checksums: what is from before a restart\n"         \
	"                     (restart, the default), never, always\n"
#define TOOL_HELP_STALL                                                                            \
	"  --stall=TIME       what it waits for has not read anything for so long:\n"              \
	"  --on-stall=WHAT    wait (the default), abort, or run: go on without that reader\n"
#define TOOL_HELP_LINGER                                                                           \
	"  --linger=TIME      when all have left: so long somebody else is waited for\n"
#define TOOL_HELP_FINISH                                                                           \
	"  --finish-percent=N, --finish-bytes=SIZE  when all have left: it is finished if so\n"    \
	"                     much of --size is done, or no more than that is left\n"
#define TOOL_HELP_JSON "  --json             print JSON\n"
#define TOOL_HELP_HEX "  --hex              each KEY is written in hexadecimal\n"

struct tool {
	const char *cache_dir;   /* --cache=DIR, else NULL */
	const char *segment_dir; /* --segment-dir=DIR, else NULL */
	int group; /* --group: mode 0770 */
	int json;
	int hex;
	const char *choices[TOOL_CHOICES]; /* --compress and so on, else NULL */
	int is_config; /* the variables that stand in for these say nothing here */
	const struct scache_options *wishes; /* for a cache that is to be made; or NULL */
	int closed[3]; /* descriptors 0, 1, 2 that were closed at start */
	int status;    /* with TOOL_OPT_STOP */
};

struct command {
	const char *name;
	const char *arguments; /* for the usage line */
	const char *summary;   /* one line, for the tool's --help */
	const char *help;      /* the rest of its own --help */
	int usage_status;      /* exit status of wrong usage */
	int takes_command;     /* options end at CMD, whose options are its own */
	int (*run)(struct tool *tool, int argc, char **argv);
};

extern const struct command cmd_exec, cmd_get, cmd_put, cmd_ls, cmd_stat, cmd_check, cmd_rm,
	cmd_sweep, cmd_verify, cmd_config, cmd_destroy, cmd_git;

struct tool_key {
	size_t bytes;
	unsigned char data[SCACHE_KEY_BYTES_MAX];
};

/* ----------------------------------------------------------------- text.c */

#define TEXT_SHORT 32                           /* a size or a duration */
#define TEXT_KEY (4 * SCACHE_KEY_BYTES_MAX + 1) /* an escaped key */
#define TEXT_HEX (2 * SCACHE_KEY_BYTES_MAX + 1)

/* "0" and "unlimited" become SCACHE_ZERO and SCACHE_UNLIMITED; -EINVAL */
int text_to_bytes(const char *text, uint64_t *ret_bytes);
int text_to_ns(const char *text, uint64_t *ret_ns);
int text_to_key(const char *hex, struct tool_key *ret_key);
const char *text_bytes(uint64_t bytes, char ret_text[TEXT_SHORT]);
const char *text_ns(uint64_t ns, char ret_text[TEXT_SHORT]);
/* "42%", rounded down */
const char *text_percent(uint64_t part, uint64_t whole, char ret_text[TEXT_SHORT]);
const char *text_hex(const void *data, size_t bytes, char *ret_text);
/* At most four bytes of text for one of @key, and a final NUL; returns the length. */
size_t text_key(const void *key, size_t bytes, int keep_controls, char *ret_text);
struct json_object *text_json(const void *data, size_t bytes);
struct json_object *text_json_limit(uint64_t value);

struct json_object *victim_json(const struct scache_victim *victim);
void victim_print_name(const struct scache_victim *victim); /* and a newline */

/* --------------------------------------------------------------- common.c */

void tool_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* From now on standard error is a stranger's: nothing of ours goes there. */
void tool_silence(void);
/* NULL if we may speak, else the last message that was not printed. */
const char *tool_silenced(void);
void tool_no_key(const struct tool_key *key); /* "no such key: ..." */
int tool_usage(const struct command *command, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void tool_help(const struct command *command);
int tool_getopt(struct tool *tool, const struct command *command, int argc, char **argv,
		const struct option *options);
/* Takes the KEY argument @text; prints and returns -EINVAL. */
int tool_key(const struct tool *tool, const struct command *command, const char *text,
	     struct tool_key *ret_key);
/* Take an option's TIME or SIZE; 0, or as tool_usage(). */
int tool_time(const struct command *command, const char *text, uint64_t *ret_ns);
int tool_size(const struct command *command, const char *text, uint64_t *ret_bytes);
/* -ENOENT if neither --cache nor the environment says where; free(*ret_dir). */
int tool_dir(const struct tool *tool, int create, char **ret_dir);
/* Prints why not, ending with @consequence (may be NULL), and returns -errno. */
int tool_open(const struct tool *tool, uint32_t flags, const char *consequence,
	      struct scache **ret_cache);
void tool_cache_error(const char *dir, int error, const char *consequence);
/* A command without arguments of its own: @inspect an existing cache. */
int tool_inspect(struct tool *tool, const struct command *command, int argc, char **argv,
		 int (*inspect)(struct tool *tool, struct scache *cache));
int tool_stdout_usable(const struct tool *tool);
int tool_write(int fd, const void *data, size_t bytes); /* all of it, or -errno */
ssize_t tool_read(int fd, void *ret_data, size_t bytes);
int tool_print_json(const struct tool *tool, struct json_object *object);
int tool_flush(const struct tool *tool, int status);
uint64_t tool_now_ns(void);

/* --------------------------------------------------------------- choice.c */

/* Takes an option's word; 0, or as tool_usage(). */
int choice_take(struct tool *tool, const struct command *command, enum tool_choice choice,
		const char *text);
/* What options and variables say; prints as tool_open() does and returns -EINVAL. */
int choice_settle(const struct tool *tool, const char *consequence, struct scache_options *options);
const char *choice_text(enum tool_choice choice, uint32_t value);

/* ------------------------------------------------------------- settings.c */

#define TOOL_SETTINGS_OWN 10 /* of which the option is not one of enum tool_choice */
#define TOOL_SETTINGS (TOOL_SETTINGS_OWN + TOOL_CHOICES)

const char *settings_option(int index); /* without "--" */
/* Takes the value of one of the first TOOL_SETTINGS_OWN; 0, or as tool_usage(). */
int settings_take(const struct command *command, int index, const char *text,
		  struct scache_options *options);
/* Prints what the library says of one of them, by the option's name; 0: it is of something else. */
int settings_error(const char *detail);
void settings_print(const struct scache_options *options);
void settings_json(const struct scache_options *options, struct json_object *object);

/* --------------------------------------------------------------- digest.c */

struct sum; /* SHA-256; free() gives it back */

/*
 * Takes TYPE:HEX: xxh128 into @acquire; sha256 into *ret_sum, which is NULL for who cannot
 * make one. Both may be given. 0, or the exit status.
 */
int digest_take(const struct command *command, const char *text,
		struct scache_acquire_options *acquire, struct sum **ret_sum);
void digest_add(struct sum *sum, const void *data, size_t bytes);
int digest_differs(struct sum *sum); /* from what was expected; once, at the end */

/* ---------------------------------------------------------------- terms.c */

#define TERMS_NOT (-1) /* @c is none of its options */

/* terms_check - do they make sense together? 0 or as tool_usage(). */
int terms_check(const struct command *command, const struct scache_acquire_options *acquire);

/* Takes an option of TOOL_OPTIONS_STALL and its like; 0, TERMS_NOT, or as tool_usage(). */
int terms_take(const struct command *command, int c, const char *text,
	       struct scache_acquire_options *acquire);

/* ------------------------------------------------------------- progress.c */

struct progress {
	pthread_mutex_t lock; /* one writer to the terminal at a time */
	int on;
	int shown;
	int stuffed; /* standard output takes nothing now */
	uint64_t declared_bytes; /* of standard input; 0: not known */
	int mid_line; /* the last thing on standard error was no whole line */
	uint64_t start_ns, next_ns;
	uint64_t rate_ns, rate_bytes; /* where the rate is measured from */
	double rate;                  /* bytes per second */
	uint64_t published, heard_ns; /* the producer's last sign of life */
};

#define PROGRESS_TICK_MS 200

/* @out_fd: where the bytes go to or come from; -1: nowhere, they are only counted. */
void progress_begin(struct progress *progress, int out_fd);
int64_t progress_timeout_ns(const struct progress *progress);
/* @reader: NULL if the source is standard input. */
void progress_tick(struct progress *progress, struct scache_reader *reader, uint64_t bytes);
/* The same for what has no one reader, if it is due; @all: SCACHE_UNLIMITED if not known. */
int progress_is_due(struct progress *progress);
void progress_show(struct progress *progress, uint64_t bytes, uint64_t all, const char *source);
void progress_say(struct progress *progress, const char *line); /* what is not counted in bytes */
void progress_clear(struct progress *progress); /* something else is printed */
int progress_stderr(struct progress *progress, const void *data, size_t bytes);
void progress_end(struct progress *progress);

/* --------------------------------------------------------------- stream.c */

#define STREAM_OUTPUT_FAILED 1 /* said so already */
#define STREAM_DIFFERS 2

/* What has been output already, and, for another run of the same bytes, its checksum. */
struct output {
	uint64_t bytes;
	int is_remembered; /* set before the first call: the sum is kept, another run may go on */
	struct XXH3_state_s *sum;         /* private; stream_forget() frees it */
};

/*
 * The rest of a run: of a second one first what was output is skipped, which
 * must be the same. Returns 0 at the end, STREAM_OUTPUT_FAILED, STREAM_DIFFERS,
 * or what scache_read() said.
 */
int stream_out(struct scache_reader *reader, struct progress *progress, struct output *output);
void stream_forget(struct output *output);
/* The same for at most @bytes bytes from @offset on, without a progress line. */
int stream_part(struct scache_reader *reader, uint64_t offset, uint64_t bytes,
		uint64_t *ret_bytes);
/* Where the last @bytes bytes begin (0 if there are fewer), once that is known. */
int stream_await_last(struct scache_reader *reader, uint64_t bytes, uint64_t *ret_offset);
/* 0, or what a write would say: nobody reads it any more. May raise SIGPIPE. */
int stream_output_is_gone(void);
int stream_output_failed(int error); /* says so; STREAM_OUTPUT_FAILED */
/* The producer's own code (> 0), else 0. */
int stream_code(struct scache_reader *reader);
void stream_print_message(struct scache_reader *reader);

/*
 * stream_why - the producer failed (@error): what it said, if that is one line, or what the
 * error means. Into @text.
 */
#define STREAM_WHY_BYTES 200
const char *stream_why(struct scache_reader *reader, int error, char text[STREAM_WHY_BYTES]);

/* ----------------------------------------------------------------- kept.c */

#define KEPT_RAW 3 /* beside STREAM_... and what the reader says: it is not compressed */

/* Both wait for the end. The LZ4 frame as it is stored: */
int kept_print_file(struct scache_reader *reader, uint64_t *ret_bytes);
int kept_print_note(struct scache_reader *reader);

/* ------------------------------------------------------------------ key.c */

struct key_sources {
	char **argv;        /* CMD and its arguments */
	const char *path;   /* as resolved by key_find_command() */
	const char **names; /* --key-env */
	int names_count;
	const char **files; /* --key-file */
	int files_count;
	int spool_fd; /* standard input, or -1 */
};

/* Returns 0 with a path that has a slash (free it), or TOOL_NOT_FOUND,
 * TOOL_CANNOT_RUN with a message. */
int key_find_command(const char *name, char **ret_path);
/* A copy of @fd in a file without a name; prints and returns -errno. */
int key_spool(int fd, int *ret_fd);
/* The same to a file that there is; @where says for the message where that is. */
int key_copy_input(int fd, int spool_fd, const char *where);
int key_default(const struct key_sources *sources, struct tool_key *ret_key);

/* --------------------------------------------------------------- holder.c */

enum holder_answer {
	HOLDER_DIED = 'D',   /* nothing was heard of it */
	HOLDER_WON = 'W',    /* waits for holder_attached() before it runs CMD */
	HOLDER_LOST = 'L',   /* somebody else produces, or has */
	HOLDER_BYPASS = 'B', /* the cache cannot help */
};

struct holder_request {
	const struct tool *tool;
	struct scache *cache; /* the caller's; of no use in the holder */
	const struct tool_key *key;
	struct scache_acquire_options acquire;
	char **argv;
	char *path;   /* as resolved by key_find_command(); NULL: as execvp() does */
	int spool_fd; /* CMD's standard input; -1: /dev/null */
};

struct holder {
	int control_fd;
	int stderr_fd; /* CMD's standard error arrives here */
};

/* Returns 0 with the answer, or -errno; release it with holder_forget(). */
int holder_start(const struct holder_request *request, struct holder *ret_holder,
		 enum holder_answer *ret_answer);
void holder_attached(struct holder *holder);
void holder_forget(struct holder *holder);

/* ---------------------------------------------------------------- share.c */

#define SHARE_BYPASS (-2) /* nothing was output, and nothing will come of the cache */

enum share_how {
	SHARE_NOT = 0,
	SHARE_STARTED, /* this caller started the run */
	SHARE_JOINED,  /* it was under way */
	SHARE_FOUND,   /* it was finished */
};

struct share {
	struct holder_request request; /* acquire, argv, path, spool_fd: the caller's to fill */
	int never_again; /* a run that is lost is not replaced, even before its first byte */
	int use_stdin; /* CMD reads: the spool, or standard input itself if there is none */
	/* what came of it */
	enum share_how how;
	struct output output; /* is_remembered: the caller's to set */
	/* private */
	int lost;    /* producers */
	int started; /* the present run is ours: we heard its messages live */
	struct progress progress;
	struct holder holder;
	pthread_t messages;
};

int share_disabled(void); /* by STREAMCACHE_DISABLE */
void share_init(struct share *share, const struct tool *tool, const struct tool_key *key);
void share_free(struct share *share);
/* Standard output gets the run's; returns its exit status, or SHARE_BYPASS. */
int share_run(struct share *share);
/* CMD takes this process's place; the exit status if it cannot. */
int share_run_directly(struct share *share);

/* ------------------------------------------------------------------ run.c */

/* Runs CMD into @writer and ends the entry. @term_fd: signalfd of SIGTERM. */
void run_command(const struct holder_request *request, struct scache_writer *writer,
		 int stderr_fd, int term_fd);
/* Makes @fd standard input, from its start; -1: /dev/null. 0 or -errno. */
int run_set_stdin(int fd);

/* ---------------------------------------------------------------- relay.c */

struct relay {
	pthread_t thread;
	int from_fd;       /* CMD's standard error, -1 after its end */
	int to_fd;         /* the caller that started CMD, -1 when it has gone */
	int ended_fd;      /* eventfd: CMD has ended */
	size_t start, end; /* what waits to be sent, in buffer */
	char *buffer;
	uint64_t dropped;
	char *tail; /* the last SCACHE_MESSAGE_BYTES_MAX bytes, a ring */
	uint64_t tail_bytes;
};

/* Takes both descriptors. 0 or -errno. */
int relay_start(struct relay *relay, int from_fd, int to_fd);
/* CMD has ended: takes what is left in the pipe; free(*ret_tail). */
void relay_stop(struct relay *relay, char **ret_tail, size_t *ret_bytes);
void relay_finish(struct relay *relay);

#endif
