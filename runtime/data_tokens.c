/* data_tokens.c - windows of tokens: the bytes of a text, or the shards of llm.c.
 *
 * In: the path of a text; or of shards, where *, ? and [ ] may stand for several. A shard
 * is 256 little-endian words of 32 bits (magic, version, number of tokens, zeros), then
 * the tokens. Out: window by window an input or a target, every token within its limit.
 *
 *     file      t0  t1  t2  t3  t4  t5  t6  t7  t8
 *     input    [0             ][1             ]         windows of 4
 *     target       [0             ][1             ]
 *
 * The windows of one file follow those of the file before it, by name; none is in two.
 *
 * Files are mapped: nothing is loaded that no window asks for, and a thousand shards cost
 * no descriptor. A file that becomes shorter is the price. Where the page is gone the
 * process ends with a message (SIGBUS); but the rest of the new last page reads as zeros,
 * so the size is asked for again after every window.
 */
#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data.h"

enum { HEADER_WORDS = 256, HEADER_BYTES = 4 * HEADER_WORDS, CHUNK = 512 };

typedef struct {
    char *path; /* owned */
    FileBytes file;
    dev_t device;
    ino_t inode;
    const unsigned char *tokens;
    int size;       /* bytes of a token */
    int64_t before; /* windows of the files before this one */
    int64_t windows;
} TokenFile;

struct TokenFiles {
    bool text;
    int64_t window;
    int64_t windows;
    TokenFile *file; /* owned */
    int nfiles;
};

bool kind_has_windows(const char *kind)
{
    return kind && (strcmp(kind, "text") == 0 || strcmp(kind, "tokens") == 0);
}

static uint32_t word_at(const unsigned char *b, int i)
{
    b += 4 * i;
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

/* The tokens of a shard, and how many bytes each has. */
static int shard_read(TokenFile *f, int64_t *tokens, Problem *p)
{
    static const struct {
        uint32_t magic, version;
        int size;
    } kinds[] = {{20240520, 1, 2}, {20240801, 7, 4}};
    const unsigned char *b = f->file.bytes;
    if (f->file.size < HEADER_BYTES)
        return problem_set(p, EXIT_RUN,
                           "%s: %zu bytes are not a shard of tokens, whose head has %d", f->path,
                           f->file.size, HEADER_BYTES);
    uint32_t magic = word_at(b, 0), version = word_at(b, 1), count = word_at(b, 2);
    size_t k = 0, n = sizeof kinds / sizeof *kinds;
    while (k < n && kinds[k].magic != magic)
        k++;
    if (k == n)
        return problem_set(p, EXIT_RUN,
                           "%s: not a shard of tokens as llm.c writes them: it starts with %u, not "
                           "with 20240520 or 20240801",
                           f->path, magic);
    if (version != kinds[k].version)
        return problem_set(p, EXIT_RUN, "%s: tokens of version %u are not known; %u is", f->path,
                           version, kinds[k].version);
    if (count > INT32_MAX)
        return problem_set(p, EXIT_RUN, "%s: its head says %d tokens", f->path, (int)count);
    size_t rest = f->file.size - HEADER_BYTES, needed = (size_t)count * (size_t)kinds[k].size;
    if (rest != needed)
        return problem_set(
            p, EXIT_RUN, "%s: its head says %u tokens of %d bytes, which are %zu; %zu follow it%s",
            f->path, count, kinds[k].size, needed, rest,
            rest < needed ? ": the file is cut off" : "");
    f->tokens = b + HEADER_BYTES;
    f->size = kinds[k].size;
    *tokens = count;
    return MDL_OK;
}

/* Opens the next file of the list. */
static int file_add(TokenFiles *t, const char *path, Problem *p)
{
    TokenFile *f = &t->file[t->nfiles++];
    *f = (TokenFile){.path = strdup(path), .before = t->windows};
    if (!f->path)
        return problem_no_memory(p, path);
    TRY(file_map(&f->file, path, p));
    struct stat st;
    if (stat(path, &st) != 0 || st.st_size != (off_t)f->file.size)
        return problem_set(p, EXIT_RUN, "%s: changes while it is opened", path);
    f->device = st.st_dev;
    f->inode = st.st_ino;

    int64_t tokens = (int64_t)f->file.size;
    f->tokens = f->file.bytes;
    f->size = 1;
    if (!t->text)
        TRY(shard_read(f, &tokens, p));
    if (f->size != t->file[0].size)
        return problem_set(p, EXIT_RUN, "%s: tokens of %d bytes; those of %s have %d", path,
                           f->size, t->file[0].path, t->file[0].size);
    f->windows = tokens > 0 ? (tokens - 1) / t->window : 0;
    t->windows += f->windows;
    if (t->windows == 0 && t->text)
        return problem_set(p, EXIT_RUN, "%s: %lld bytes hold no window of %lld and one more", path,
                           (long long)tokens, (long long)t->window);
    return MDL_OK;
}

static int path_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int pattern_failed(const char *pattern, int status, Problem *p)
{
    if (status == GLOB_NOMATCH)
        return problem_set(p, EXIT_USE, "%s: no file matches", pattern);
    if (status == GLOB_ABORTED)
        return problem_set(p, EXIT_USE, "%s: %s", pattern, strerror(errno));
    return problem_no_memory(p, pattern);
}

/* All files of `pattern`. A file of just that name is meant by it, whatever is in the name. */
static int files_add(TokenFiles *t, const char *pattern, Problem *p)
{
    struct stat st;
    char *one = (char *)(uintptr_t)pattern, **paths = &one;
    size_t n = 1;
    glob_t found = {0};
    bool several = !t->text && strpbrk(pattern, "*?[") && stat(pattern, &st) != 0;
    int status = MDL_OK;
    if (several) {
        int failed = glob(pattern, GLOB_ERR | GLOB_NOSORT, NULL, &found);
        if (failed)
            status = pattern_failed(pattern, failed, p);
        paths = found.gl_pathv;
        n = found.gl_pathc;
        /* glob's own order depends on the locale. */
        if (!failed)
            qsort(paths, n, sizeof *paths, path_compare);
    }
    t->file = calloc(n + 1, sizeof *t->file);
    if (!t->file || n > INT32_MAX)
        status = problem_no_memory(p, pattern);
    for (size_t i = 0; i < n && status == MDL_OK; i++)
        status = file_add(t, paths[i], p);
    if (several)
        globfree(&found);
    if (status == MDL_OK && t->windows == 0)
        status = problem_set(p, EXIT_RUN, "%s: holds no window of %lld tokens and one more",
                             pattern, (long long)t->window);
    return status;
}

/* One row of integers, and the same one token on: whatever has no window is refused. */
static int window_of(int64_t *window, const char *path, const char *kind, const MdlModel *model,
                     Problem *p)
{
    const MdlInput *input = NULL, *target = NULL;
    bool fits = model->ninputs == 1 || model->ninputs == 2;
    for (int i = 0; i < model->ninputs && fits; i++) {
        const MdlInput *in = &model->inputs[i];
        fits = (in->type == MDL_I32 || in->type == MDL_U8) && in->rank == 1 && in->dim[0] > 0;
        *(in->target ? &target : &input) = in;
    }
    fits = fits && input && (model->ninputs == 1 || (target && target->dim[0] == input->dim[0]));
    if (!fits)
        return problem_set(p, EXIT_USE,
                           "%s: %s data fits a model with one input i32[n] and at most a target of "
                           "the same shape; %s is another",
                           path, kind, model->name ? model->name : "this");
    *window = input->dim[0];
    return MDL_OK;
}

int tokens_open(TokenFiles **out, const char *path, const char *kind, const MdlModel *model,
                Problem *p)
{
    *out = NULL;
    int64_t window = 0;
    TRY(window_of(&window, path, kind, model, p));
    TokenFiles *t = calloc(1, sizeof *t);
    if (!t)
        return problem_no_memory(p, path);
    *t = (TokenFiles){.text = strcmp(kind, "text") == 0, .window = window};
    int status = files_add(t, path, p);
    if (status == MDL_OK)
        *out = t;
    else
        tokens_close(t);
    return status;
}

void tokens_close(TokenFiles *t)
{
    if (!t)
        return;
    for (int i = 0; i < t->nfiles; i++) {
        file_release(&t->file[i].file);
        free(t->file[i].path);
    }
    free(t->file);
    free(t);
}

int64_t tokens_windows(const TokenFiles *t)
{
    return t->windows;
}

/* The file that holds a window. */
static const TokenFile *file_of(const TokenFiles *t, int64_t window)
{
    int low = 0, high = t->nfiles - 1;
    while (low < high) {
        int middle = low + (high - low + 1) / 2;
        if (t->file[middle].before <= window)
            low = middle;
        else
            high = middle - 1;
    }
    return &t->file[low];
}

static void tokens_widen(uint32_t *out, const unsigned char *at, int size, int n)
{
    if (size == 1)
        for (int i = 0; i < n; i++)
            out[i] = at[i];
    else if (size == 2)
        for (int i = 0; i < n; i++)
            out[i] = (uint32_t)(at[2 * i] | at[2 * i + 1] << 8);
    else
        for (int i = 0; i < n; i++)
            out[i] = word_at(at, i);
}

/* token[n] from number `first` of its file on, into the input from `place` on. What is
 * checked is the copy: the file may change. */
static int tokens_store(const TokenFiles *t, const TokenFile *f, int64_t first,
                        const MdlInput *input, const uint32_t *token, int n, void *out,
                        int64_t place, Problem *p)
{
    int64_t high = input->type == MDL_U8 ? UINT8_MAX : INT32_MAX;
    if (input->limit > 0 && input->limit - 1 < high)
        high = input->limit - 1;
    uint32_t most = 0;
    for (int i = 0; i < n; i++)
        most = token[i] > most ? token[i] : most;
    if (most > high) {
        int i = 0;
        while (token[i] <= high)
            i++;
        return problem_set(p, EXIT_RUN, "%s: %s %lld (from 0) is %u; %s '%s' takes 0 to %lld",
                           f->path, t->text ? "byte" : "token", (long long)(first + i), token[i],
                           input->target ? "target" : "input", input->name, (long long)high);
    }
    if (input->type == MDL_U8)
        for (int i = 0; i < n; i++)
            ((uint8_t *)out)[place + i] = (uint8_t)token[i];
    else
        memcpy((int32_t *)out + place, token, (size_t)n * sizeof *token);
    return MDL_OK;
}

/* A file of that name that is another one by now does not matter: ours is still mapped. */
static int file_unchanged(const TokenFile *f, Problem *p)
{
    struct stat st;
    if (stat(f->path, &st) != 0 || st.st_dev != f->device || st.st_ino != f->inode ||
        st.st_size >= (off_t)f->file.size)
        return MDL_OK;
    return problem_set(p, EXIT_RUN, "%s: became shorter while it was read, %zu bytes to %lld",
                       f->path, f->file.size, (long long)st.st_size);
}

int tokens_window(const TokenFiles *t, int64_t window, const MdlInput *input, void *out, Problem *p)
{
    const TokenFile *f = file_of(t, window);
    int64_t first = (window - f->before) * t->window + input->target;
    uint32_t chunk[CHUNK];
    for (int64_t done = 0; done < t->window; done += CHUNK) {
        int n = t->window - done < CHUNK ? (int)(t->window - done) : CHUNK;
        tokens_widen(chunk, f->tokens + (first + done) * f->size, f->size, n);
        TRY(tokens_store(t, f, first + done, input, chunk, n, out, done, p));
    }
    return file_unchanged(f, p);
}
