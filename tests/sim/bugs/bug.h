/* bug.h - what the programs with planted bugs share.
 *
 * A program holds many cases; each is a function template whose argument says whether its bug
 * is in it. `PROGRAM CASE bug` and `PROGRAM CASE good` run one of them. The twin without the
 * bug checks its own results and prints "right". Comments above a case are read by bugs.sh:
 *
 *     // case: NAME - what is planted
 *     // expect: KIND  WORDS  here:MARK  ...     all of it must be in the report
 *     // with: NAME=VALUE ...                    environment of both
 *
 * KIND may be a choice, "race|use-after-free". Words are parted by two spaces; here:MARK stands for
 * FILE:LINE of the line with the comment here: MARK.
 */
#ifndef BUG_H
#define BUG_H

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <cuda_runtime.h>

enum { THREADS = 128, BLOCKS = 4, N = THREADS * BLOCKS };

struct Case {
    const char *name;
    void (*good)();
    void (*bug)();
};

static inline std::vector<Case> &all_cases()
{
    static std::vector<Case> cases;
    return cases;
}

struct Registration {
    Registration(const char *name, void (*good)(), void (*bug)())
    {
        all_cases().push_back({name, good, bug});
    }
};

#define CASE(name)                                                                                 \
    template <bool BUG> static void name();                                                        \
    static const Registration registration_of_##name(#name, name<false>, name<true>);              \
    template <bool BUG> static void name()

/* Success is 0 in CUDA, cuBLAS and NCCL. */
template <typename Status>
static inline void check(Status status, const char *call, const char *file, int line)
{
    if (static_cast<int>(status) == 0)
        return;
    std::fprintf(stderr, "%s:%d: %s: error %d\n", file, line, call, static_cast<int>(status));
    std::_Exit(3);
}

#define CHECK(call) check((call), #call, __FILE__, __LINE__)

inline int expectations;

static inline void expect(bool right, const char *what, const char *file, int line)
{
    ++expectations;
    if (right)
        return;
    std::fprintf(stderr, "%s:%d: wrong: %s\n", file, line, what);
    std::_Exit(4);
}

#define EXPECT(condition) expect((condition), #condition, __FILE__, __LINE__)

/* Fresh memory of the current device. */
template <typename T> static inline T *device_memory(int n)
{
    void *memory = nullptr;
    CHECK(cudaMalloc(&memory, static_cast<size_t>(n) * sizeof(T)));
    return static_cast<T *>(memory);
}

/* n zeros, there before any later work of any stream. */
template <typename T> static inline T *device_zeros(int n)
{
    T *zeros = device_memory<T>(n);
    CHECK(cudaMemset(zeros, 0, static_cast<size_t>(n) * sizeof(T)));
    CHECK(cudaDeviceSynchronize());
    return zeros;
}

/* 0, 1, 2, ..., there before any later work of any stream. */
static inline float *device_numbers(int n)
{
    std::vector<float> numbers(static_cast<size_t>(n));
    for (size_t i = 0; i < numbers.size(); ++i)
        numbers[i] = static_cast<float>(i);
    float *memory = device_memory<float>(n);
    CHECK(
        cudaMemcpy(memory, numbers.data(), numbers.size() * sizeof(float), cudaMemcpyHostToDevice));
    CHECK(cudaDeviceSynchronize());
    return memory;
}

/* Element i is slope * i + start. All work must have been waited for. */
static inline void expect_line(const float *memory, int n, float slope, float start)
{
    std::vector<float> values(static_cast<size_t>(n));
    CHECK(cudaMemcpy(values.data(), memory, values.size() * sizeof(float), cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < values.size(); ++i)
        EXPECT(values[i] == slope * static_cast<float>(i) + start);
}

template <typename T> static inline T device_value(const T *memory)
{
    T value;
    CHECK(cudaMemcpy(&value, memory, sizeof value, cudaMemcpyDeviceToHost));
    return value;
}

static inline cudaStream_t new_stream()
{
    cudaStream_t stream;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}

static inline cudaEvent_t new_event()
{
    cudaEvent_t event;
    CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return event;
}

int main(int argc, char **argv)
{
    for (const Case &c : all_cases())
        if (argc == 3 && std::strcmp(argv[1], c.name) == 0) {
            if (std::strcmp(argv[2], "bug") == 0) {
                c.bug();
                return 0;
            }
            c.good();
            EXPECT(expectations > 0);
            std::puts("right");
            return 0;
        }
    std::fprintf(stderr, "usage: %s CASE bug|good\n", argv[0]);
    return 2;
}

#endif
