/* base.h - memory, growing arrays and text: what every other part of the compiler
 * stands on. One arena serves a whole compilation; nothing is freed by hand. */
#ifndef MDLC_BASE_H
#define MDLC_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct Arena Arena;

Arena *arena_new(void);
void arena_free(Arena *a);
/* Zeroed, aligned to 16 bytes. Ends the process with exit code 2 when memory runs out. */
void *arena_alloc(Arena *a, size_t size);
void *arena_copy(Arena *a, const void *from, size_t size);
char *arena_strndup(Arena *a, const char *s, size_t n);
char *arena_printf(Arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define ARENA_NEW(a, T) ((T *)arena_alloc((a), sizeof(T)))
#define ARENA_ARRAY(a, T, n) ((T *)arena_alloc((a), sizeof(T) * (size_t)(n)))

/* A growing array: VEC(int) v = {0}; VEC_PUSH(arena, &v, 3); v.at[0], v.n. */
#define VEC(T)                                                                                     \
    struct {                                                                                       \
        T *at;                                                                                     \
        int n, cap;                                                                                \
    }
void *vec_grow(Arena *a, void *at, int n, int *cap, size_t size);
void *vec_reserve(Arena *a, void *at, int n, int *cap, int want, size_t size);
/* Room for `want` elements in all, in one piece. */
#define VEC_RESERVE(a, v, want)                                                                    \
    ((v)->at = vec_reserve((a), (v)->at, (v)->n, &(v)->cap, (want), sizeof *(v)->at))
#define VEC_PUSH(a, v, ...)                                                                        \
    ((v)->n == (v)->cap                                                                            \
         ? (void)((v)->at = vec_grow((a), (v)->at, (v)->n, &(v)->cap, sizeof *(v)->at))            \
         : (void)0,                                                                                \
     (v)->at[(v)->n++] = (__VA_ARGS__))

/* Text that grows; `at` is always terminated. Lives in the arena. */
typedef struct {
    Arena *arena;
    char *at;
    size_t n, cap;
} Text;
void text_add(Text *t, const char *s);
void text_add_n(Text *t, const char *s, size_t n);
void text_printf(Text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* a * b and a + b of non-negative numbers; false when the result passes INT64_MAX. */
bool mul_i64(int64_t a, int64_t b, int64_t *out);
bool add_i64(int64_t a, int64_t b, int64_t *out);

int64_t round_up(int64_t n, int64_t to);

/* 1234567 as "1,234,567"; bytes as "1.2 MiB"; flops as "3.4 GFLOP". In the arena. */
const char *show_count(Arena *a, int64_t n);
const char *show_bytes(Arena *a, int64_t n);
const char *show_quantity(Arena *a, double n, const char *unit);

/* The character at s, its length in *length; -1 where the bytes are not UTF-8. */
int32_t utf8_decode(const char *s, size_t size, int *length);
/* Whether the character moves, hides or reorders others: controls, bidirectional marks. */
bool char_is_unsafe(int32_t c);

#endif
