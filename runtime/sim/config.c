/* config.c - settings from the environment.
 *
 * Every variable is read once, checked, and a value that is not understood ends the process
 * before anything runs.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"

enum { EXIT_CONFIG = 2 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static SimConfig config;

static _Noreturn void config_refuse(const char *name, const char *value, const char *wanted)
{
    fflush(stdout);
    fprintf(stderr, "mdl-sim: %s=%s: expected %s\n", name, value, wanted);
    _exit(EXIT_CONFIG);
}

static _Noreturn void config_unknown(const char *setting)
{
    fflush(stdout);
    fprintf(stderr, "mdl-sim: %s: there is no setting of this name\n", setting);
    _exit(EXIT_CONFIG);
}

static const char *config_text(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static bool config_number(const char *text, const char *end, double *out)
{
    char *stop;
    if (!text || text == end || !((*text >= '0' && *text <= '9') || *text == '.'))
        return false;
    errno = 0;
    *out = strtod(text, &stop);
    return errno == 0 && stop == end && *out >= 0;
}

static int64_t config_integer(const char *name, int64_t otherwise, int64_t least, int64_t most,
                              const char *wanted)
{
    const char *value = config_text(name);
    if (!value)
        return otherwise;
    char *stop;
    errno = 0;
    long long n = strtoll(value, &stop, 10);
    if (errno || stop == value || *stop || n < least || n > most)
        config_refuse(name, value, wanted);
    return n;
}

static bool config_flag(const char *name)
{
    return config_integer(name, 0, 0, 1, "0 or 1") == 1;
}

static int config_choice(const char *name, const char *const *choices, int n, const char *wanted)
{
    const char *value = config_text(name);
    if (!value)
        return 0;
    for (int i = 0; i < n; i++)
        if (strcmp(value, choices[i]) == 0)
            return i;
    config_refuse(name, value, wanted);
}

static uint64_t config_bytes(const char *name, uint64_t otherwise)
{
    static const struct {
        const char *unit;
        double bytes;
    } UNITS[] = {{"TiB", 0x1p40}, {"GiB", 0x1p30}, {"MiB", 0x1p20},
                 {"KiB", 0x1p10}, {"B", 1},        {"", 1}};
    const char *value = config_text(name), *wanted = "a size such as 512MiB, 16GiB or bytes";
    if (!value)
        return otherwise;
    size_t length = strlen(value);
    for (size_t i = 0; i < sizeof UNITS / sizeof *UNITS; i++) {
        size_t unit = strlen(UNITS[i].unit);
        double n;
        if (length <= unit || strcmp(value + length - unit, UNITS[i].unit) != 0)
            continue;
        if (!config_number(value, value + length - unit, &n))
            break;
        if (n * UNITS[i].bytes < 0x1p20 || n * UNITS[i].bytes > (double)(SIM_DEVICE_SPAN / 2))
            config_refuse(name, value, "between 1MiB and 128GiB");
        return (uint64_t)(n * UNITS[i].bytes);
    }
    config_refuse(name, value, wanted);
}

static double config_seconds(const char *name, double otherwise)
{
    const char *value = config_text(name);
    double n;
    if (!value)
        return otherwise;
    if (!config_number(value, value + strlen(value), &n) || n > 1e6)
        config_refuse(name, value, "seconds");
    return n;
}

static void config_arch(void)
{
    const char *value = config_text("MDL_SIM_ARCH");
    config.major = 8;
    config.minor = 0;
    if (!value)
        return;
    char *dot, *end;
    long major = strtol(value, &dot, 10),
         minor = dot && *dot == '.' ? strtol(dot + 1, &end, 10) : -1;
    if (major < 5 || major > 20 || minor < 0 || minor > 9 || end == dot + 1 || *end)
        config_refuse("MDL_SIM_ARCH", value, "a compute capability such as 8.0 or 9.0");
    config.major = (int)major;
    config.minor = (int)minor;
}

static void config_fail(void)
{
    const char *value = config_text("MDL_SIM_FAIL"), *colon = value ? strrchr(value, ':') : NULL;
    if (!value)
        return;
    char *end = NULL;
    long n = colon ? strtol(colon + 1, &end, 10) : 0;
    if (n < 1 || *end || colon == value)
        config_refuse("MDL_SIM_FAIL", value, "CALL:N, the N-th call of a function from 1");
    size_t length = (size_t)(colon - value);
    char *call = malloc(length + 1);
    if (!call)
        config_refuse("MDL_SIM_FAIL", value, "memory for it");
    memcpy(call, value, length);
    call[length] = 0;
    config.fail_call = call;
    config.fail_number = n;
}

/* A misspelt setting would be one that is silently not in force. */
static void config_names(void)
{
    static const char *const NAMES[] = {"DEVICES", "MEMORY",   "SCHEDULE", "SEED",  "CHECK",
                                        "NCCL",    "CONTINUE", "TIMEOUT",  "CACHE", "CC",
                                        "TRACE",   "KEEP",     "ARCH",     "FAIL"};
    const char *prefix = "MDL_SIM_";
    for (char **variable = environ; *variable; variable++) {
        if (strncmp(*variable, prefix, strlen(prefix)) != 0)
            continue;
        const char *name = *variable + strlen(prefix), *value = strchr(name, '=');
        bool known = false;
        for (size_t i = 0; value && i < sizeof NAMES / sizeof *NAMES; i++)
            known = known || (strlen(NAMES[i]) == (size_t)(value - name) &&
                              strncmp(NAMES[i], name, strlen(NAMES[i])) == 0);
        if (!known)
            config_unknown(*variable);
    }
}

/* The folder for caches as the desktop's conventions have it; NULL: nowhere. */
static const char *config_cache(void)
{
    const char *cache = config_text("MDL_SIM_CACHE"), *base = config_text("XDG_CACHE_HOME");
    const char *below = "/mdl-sim";
    if (cache)
        return cache;
    if (!base) {
        base = config_text("HOME");
        below = "/.cache/mdl-sim";
    }
    size_t size = base ? strlen(base) + strlen(below) + 1 : 0;
    char *text = base ? malloc(size) : NULL;
    if (text)
        snprintf(text, size, "%s%s", base, below);
    return text;
}

static void config_read(void)
{
    config_names();
    static const char *const SCHEDULES[] = {"random", "eager", "fifo", "lifo"};
    static const char *const CHECKS[] = {"race", "fast"};
    static const char *const NCCL[] = {"normal", "pessimistic"};
    config.devices = (int)config_integer("MDL_SIM_DEVICES", 4, 1, SIM_DEVICES_MAX, "1 to 64");
    config.memory = config_bytes("MDL_SIM_MEMORY", UINT64_C(16) << 30);
    config.schedule =
        (SimSchedule)config_choice("MDL_SIM_SCHEDULE", SCHEDULES, 4, "random, eager, fifo or lifo");
    config.seed = (uint64_t)config_integer("MDL_SIM_SEED", 1, 0, INT64_MAX, "a whole number");
    config.race = config_choice("MDL_SIM_CHECK", CHECKS, 2, "race or fast") == 0;
    config.pessimistic = config_choice("MDL_SIM_NCCL", NCCL, 2, "normal or pessimistic") == 1;
    config.keep_going = config_flag("MDL_SIM_CONTINUE");
    config.trace = config_flag("MDL_SIM_TRACE");
    config.timeout = config_seconds("MDL_SIM_TIMEOUT", 20);
    config.cache = config_cache();
    config.cc = config_text("MDL_SIM_CC");
    config.cc = config.cc ? config.cc : "cc";
    config.keep = config_text("MDL_SIM_KEEP");
    if (config.keep) { /* made where it is missing */
        (void)mkdir(config.keep, 0777);
        if (access(config.keep, W_OK | X_OK) != 0)
            config_refuse("MDL_SIM_KEEP", config.keep, "a folder that can be written into");
    }
    config_arch();
    config_fail();
}

const SimConfig *sim_config(void)
{
    pthread_once(&once, config_read);
    return &config;
}
