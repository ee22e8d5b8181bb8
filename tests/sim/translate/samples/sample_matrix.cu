/* sample_matrix.cu - products of matrices by a warp: wmma, mma.sync, ldmatrix, cp.async.
 *
 *     sample_matrix          compares with the host
 *     sample_matrix few      a warp of 16 lanes multiplies, which has to be found
 *
 * Elements are small multiples of 1/4, so that all sums are exact, also in f16.
 */
#include "sample.h"

#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

using namespace nvcuda;

/* Element i of a matrix. */
static float element(int i)
{
    return (float)((i * 7 + i / 5) % 9 - 4) * 0.25f;
}

template <typename T> static T *matrix(int n)
{
    T *host = new T[n];
    for (int i = 0; i < n; i++)
        host[i] = (T)element(i);
    T *device = to_device(host, (size_t)n);
    delete[] host;
    return device;
}

/* Row-major or column-major m x n with lines `ld` apart. */
static int at(bool row_major, int ld, int row, int column)
{
    return row_major ? row * ld + column : column * ld + row;
}

/* ----------------------------------------------------------------------- wmma */

template <typename T> struct MemoryOf {
    typedef T Type;
};
template <> struct MemoryOf<wmma::precision::tf32> {
    typedef float Type;
};

enum { LD = 48 }; /* of all matrices: longer than any line */

template <int M, int N, int K, typename T, typename Sum, typename LayoutA, typename LayoutB>
__global__ void multiply(const typename MemoryOf<T>::Type *a, const typename MemoryOf<T>::Type *b,
                         const Sum *c, Sum *d, bool in_shared, wmma::layout_t layout)
{
    typedef typename MemoryOf<T>::Type Memory;
    __shared__ __align__(32) Memory copy[32 * LD];
    wmma::fragment<wmma::matrix_a, M, N, K, T, LayoutA> fa;
    wmma::fragment<wmma::matrix_b, M, N, K, T, LayoutB> fb;
    wmma::fragment<wmma::accumulator, M, N, K, Sum> fc, fd;
    for (int i = threadIdx.x; i < 32 * LD; i += 32)
        copy[i] = a[i];
    __syncwarp();
    wmma::load_matrix_sync(fa, in_shared ? (const Memory *)copy : a, LD);
    wmma::load_matrix_sync(fb, b, LD);
    wmma::load_matrix_sync(fc, c, LD, layout);
    for (int i = 0; i < fc.num_elements; i++)
        fc.x[i] = fc.x[i] + fc.x[i];
    wmma::mma_sync(fd, fa, fb, fc);
    wmma::store_matrix_sync(d, fd, LD, layout);
}

template <int M, int N, int K, typename T, typename Sum, typename LayoutA, typename LayoutB>
static void run_wmma(const char *what)
{
    typedef typename MemoryOf<T>::Type Memory;
    enum { SIZE = 32 * LD };
    const bool row_a = std::is_same<LayoutA, wmma::row_major>::value;
    const bool row_b = std::is_same<LayoutB, wmma::row_major>::value;
    Memory *a = matrix<Memory>(SIZE), *b = matrix<Memory>(SIZE);
    Sum *c = matrix<Sum>(SIZE), *d = matrix<Sum>(SIZE), *out = new Sum[SIZE];
    for (int variant = 0; variant < 4; variant++) {
        const bool row_c = variant % 2 == 0;
        multiply<M, N, K, T, Sum, LayoutA, LayoutB><<<1, 32>>>(
            a, b, c, d, variant / 2 == 1, row_c ? wmma::mem_row_major : wmma::mem_col_major);
        to_host(out, d, SIZE);
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++) {
                float sum = 2 * element(at(row_c, LD, i, j));
                for (int k = 0; k < K; k++)
                    sum += element(at(row_a, LD, i, k)) * element(at(row_b, LD, k, j));
                expect_near(what, i * 100 + j, (double)(float)out[at(row_c, LD, i, j)], (double)sum,
                            0);
            }
    }
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
    CHECK(cudaFree(c));
    CHECK(cudaFree(d));
    delete[] out;
}

template <int M, int N, int K, typename T, typename Sum> static void run_layouts(const char *what)
{
    run_wmma<M, N, K, T, Sum, wmma::row_major, wmma::col_major>(what);
    run_wmma<M, N, K, T, Sum, wmma::col_major, wmma::row_major>(what);
    run_wmma<M, N, K, T, Sum, wmma::row_major, wmma::row_major>(what);
}

/* -------------------------------------------------------------------- mma.sync */

/* Which element of A (16 x K), of B (K x 8), of C (16 x 8) a lane's i-th is, as PTX tells it;
 * `per` elements of a row lie in one register. */
__device__ static void place_a(int per, int i, int *row, int *k)
{
    const int lane = threadIdx.x, word = i / per;
    *row = lane / 4 + word % 2 * 8;
    *k = lane % 4 * per + word / 2 * 4 * per + i % per;
}

__device__ static void place_b(int per, int i, int *k, int *column)
{
    const int lane = threadIdx.x, word = i / per;
    *k = lane % 4 * per + word * 4 * per + i % per;
    *column = lane / 4;
}

__device__ static void place_c(int i, int *row, int *column)
{
    *row = (int)threadIdx.x / 4 + i / 2 * 8;
    *column = (int)threadIdx.x % 4 * 2 + i % 2;
}

#define MMA(NAME, SHAPE, TYPES, D, A, B)                                                           \
    struct NAME {                                                                                  \
        __device__ static void run(float *d, const unsigned *a, const unsigned *b)                 \
        {                                                                                          \
            asm volatile("mma.sync.aligned." SHAPE ".row.col." TYPES " {%0, %1, %2, %3}, " A       \
                         ", " B ", {%0, %1, %2, %3};"                                              \
                         : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                          \
                         : D);                                                                     \
        }                                                                                          \
    }
#define FOUR_AND_TWO "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])
#define TWO_AND_ONE "r"(a[0]), "r"(a[1]), "r"(b[0])
MMA(MmaF16, "m16n8k16", "f32.f16.f16.f32", FOUR_AND_TWO, "{%4, %5, %6, %7}", "{%8, %9}");
MMA(MmaBf16, "m16n8k16", "f32.bf16.bf16.f32", FOUR_AND_TWO, "{%4, %5, %6, %7}", "{%8, %9}");
MMA(MmaF16Short, "m16n8k8", "f32.f16.f16.f32", TWO_AND_ONE, "{%4, %5}", "{%6}");
MMA(MmaBf16Short, "m16n8k8", "f32.bf16.bf16.f32", TWO_AND_ONE, "{%4, %5}", "{%6}");
MMA(MmaTf32, "m16n8k8", "f32.tf32.tf32.f32", FOUR_AND_TWO, "{%4, %5, %6, %7}", "{%8, %9}");
MMA(MmaTf32Short, "m16n8k4", "f32.tf32.tf32.f32", TWO_AND_ONE, "{%4, %5}", "{%6}");

template <typename Mma, typename T, int K>
__global__ void by_registers(const T *a, const T *b, const float *c, float *d)
{
    enum { PER = 4 / sizeof(T) };
    unsigned ra[4], rb[2];
    float rd[4];
    int row, column, k;
    for (int i = 0; i < 16 * K / 32; i++) {
        place_a(PER, i, &row, &k);
        ((T *)ra)[i] = a[row * K + k];
    }
    for (int i = 0; i < 8 * K / 32; i++) {
        place_b(PER, i, &k, &column);
        ((T *)rb)[i] = b[k * 8 + column];
    }
    for (int i = 0; i < 4; i++) {
        place_c(i, &row, &column);
        rd[i] = c[row * 8 + column];
    }
    if (sizeof(T) == 4) /* bits that are no part of tf32 */
        for (int i = 0; i < 2; i++)
            ra[i] |= 0x1fff, rb[i] |= 0xfff;
    Mma::run(rd, ra, rb);
    for (int i = 0; i < 4; i++) {
        place_c(i, &row, &column);
        d[row * 8 + column] = rd[i];
    }
}

static void expect_product(const char *what, const float *d, int depth)
{
    float out[128];
    to_host(out, d, 128);
    for (int i = 0; i < 128; i++) {
        float sum = element(i);
        for (int k = 0; k < depth; k++)
            sum += element(i / 8 * depth + k) * element(k * 8 + i % 8);
        expect_near(what, i, (double)out[i], (double)sum, 0);
    }
}

template <typename Mma, typename T, int K> static void run_mma(const char *what)
{
    T *a = matrix<T>(16 * K), *b = matrix<T>(K * 8);
    float *c = matrix<float>(128), *d = matrix<float>(128);
    by_registers<Mma, T, K><<<1, 32>>>(a, b, c, d);
    expect_product(what, d, K);
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
    CHECK(cudaFree(c));
    CHECK(cudaFree(d));
}

/* Sums in f16: C and D are two registers. */
__global__ void in_halves(const __half *a, const __half *b, const __half *c, __half *d)
{
    unsigned ra[4], rb[2], rd[2];
    int row, column, k;
    for (int i = 0; i < 8; i++) {
        place_a(2, i, &row, &k);
        ((__half *)ra)[i] = a[row * 16 + k];
    }
    for (int i = 0; i < 4; i++) {
        place_b(2, i, &k, &column);
        ((__half *)rb)[i] = b[k * 8 + column];
        place_c(i, &row, &column);
        ((__half *)rd)[i] = c[row * 8 + column];
    }
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3, %4, %5}, "
                 "{%6, %7}, {%0, %1};"
                 : "+r"(rd[0]), "+r"(rd[1])
                 : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]));
    for (int i = 0; i < 4; i++) {
        place_c(i, &row, &column);
        d[row * 8 + column] = ((__half *)rd)[i];
    }
}

/* ------------------------------------------------- cp.async, ldmatrix, mma in a row */

__device__ static unsigned shared_address(const void *p)
{
    return (unsigned)__cvta_generic_to_shared(p);
}

__device__ static void copy_16(void *to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from));
}

/* As matrix kernels do: rows into shared memory, which ldmatrix gives to the lanes; B lies
 * there row by row, so that it is transposed on its way. */
__global__ void by_ldmatrix(const __nv_bfloat16 *a, const __nv_bfloat16 *b, const float *c,
                            float *d)
{
    __shared__ __align__(16) __nv_bfloat16 sa[16][16], sb[16][8];
    const int lane = threadIdx.x;
    unsigned ra[4], rb[2];
    float rd[4];
    copy_16(&sa[lane / 2][lane % 2 * 8], a + lane * 8);
    asm volatile("cp.async.commit_group;");
    if (lane < 16)
        copy_16(sb[lane], b + lane * 8);
    asm volatile("cp.async.commit_group;");
    asm volatile("cp.async.wait_group 1;");
    __syncwarp();
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(ra[0]), "=r"(ra[1]), "=r"(ra[2]), "=r"(ra[3])
                 : "r"(shared_address(&sa[lane % 16][lane / 16 * 8])));
    asm volatile("cp.async.wait_all;");
    __syncwarp();
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(rb[0]), "=r"(rb[1])
                 : "r"(shared_address(sb[lane % 16])));
    for (int i = 0; i < 4; i++) {
        int row, column;
        place_c(i, &row, &column);
        rd[i] = c[row * 8 + column];
    }
    MmaBf16::run(rd, ra, rb);
    for (int i = 0; i < 4; i++) {
        int row, column;
        place_c(i, &row, &column);
        d[row * 8 + column] = rd[i];
    }
}

/* Registers of ldmatrix as they are: out[0 ... 3] of .x4, [4 ... 7] of .x4.trans, [8] of .x1. */
__global__ void loaded(unsigned *out)
{
    __shared__ __align__(16) unsigned short s[32][8];
    const int lane = threadIdx.x;
    unsigned r[9];
    for (int i = 0; i < 8; i++)
        s[lane][i] = (unsigned short)(lane * 8 + i);
    __syncwarp();
    /* Lanes beyond the first eight have no address that .x1 looks at. */
    const unsigned here = shared_address(s[lane]), other = lane < 8 ? here : 0xfffffff1;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(here));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[4]), "=r"(r[5]), "=r"(r[6]), "=r"(r[7])
                 : "r"(here));
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[8]) : "r"(other));
    for (int i = 0; i < 9; i++)
        out[lane * 9 + i] = r[i];
}

static void run_loaded(void)
{
    unsigned out[32 * 9], *d = to_device(out, 32 * 9);
    loaded<<<1, 32>>>(d);
    to_host(out, d, 32 * 9);
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 9; i++) {
            const int m = i % 4, row = m * 8 + lane / 4, column = lane % 4 * 2;
            const int low = row * 8 + column, turned = (m * 8 + column) * 8 + lane / 4;
            const bool transposed = i / 4 == 1;
            expect_equal("ldmatrix", lane * 9 + i, out[lane * 9 + i],
                         transposed ? turned | (turned + 8) << 16 : low | (low + 1) << 16);
        }
    CHECK(cudaFree(d));
}

/* A policy for caches is no number of bytes; of fewer bytes than asked for, the rest is zero. */
__global__ void hinted(const float *from, float *to)
{
    __shared__ __align__(16) float s[2][4];
    if (threadIdx.x == 0) {
        unsigned long long policy;
        asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
        asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(
                         shared_address(s[0])),
                     "l"(from), "l"(policy));
        asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(
                         shared_address(s[1])),
                     "l"(from), "r"(8), "l"(policy));
        asm volatile("cp.async.wait_all;");
        for (int i = 0; i < 8; i++)
            to[i] = s[i / 4][i % 4];
    }
}

static void run_hinted(void)
{
    float *from = matrix<float>(4), *to = matrix<float>(8), out[8];
    hinted<<<1, 32>>>(from, to);
    to_host(out, to, 8);
    for (int i = 0; i < 8; i++)
        expect_near("cp.async", i, (double)out[i], i < 6 ? (double)element(i % 4) : 0, 0);
    CHECK(cudaFree(from));
    CHECK(cudaFree(to));
}

static void run_in_halves(void)
{
    __half *a = matrix<__half>(256), *b = matrix<__half>(128), *c = matrix<__half>(128);
    __half *d = matrix<__half>(128), out[128];
    in_halves<<<1, 32>>>(a, b, c, d);
    to_host(out, d, 128);
    for (int i = 0; i < 128; i++) {
        float sum = element(i);
        for (int k = 0; k < 16; k++)
            sum += element(i / 8 * 16 + k) * element(k * 8 + i % 8);
        expect_near("mma f16 in f16", i, (double)(float)out[i], (double)sum, 0);
    }
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
    CHECK(cudaFree(c));
    CHECK(cudaFree(d));
}

static void run_ldmatrix(void)
{
    __nv_bfloat16 *a = matrix<__nv_bfloat16>(256), *b = matrix<__nv_bfloat16>(128);
    float *c = matrix<float>(128), *d = matrix<float>(128);
    by_ldmatrix<<<1, 32>>>(a, b, c, d);
    expect_product("ldmatrix, mma", d, 16);
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
    CHECK(cudaFree(c));
    CHECK(cudaFree(d));
}

static int run_few(void)
{
    __nv_bfloat16 *a = matrix<__nv_bfloat16>(256), *b = matrix<__nv_bfloat16>(128);
    float *c = matrix<float>(128), *d = matrix<float>(128);
    by_registers<MmaBf16, __nv_bfloat16, 16><<<1, 16>>>(a, b, c, d);
    CHECK(cudaDeviceSynchronize());
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "few") == 0)
        return run_few();
    run_layouts<16, 16, 16, __nv_bfloat16, float>("wmma bf16");
    run_layouts<16, 16, 16, __half, float>("wmma f16");
    run_layouts<16, 16, 16, __half, __half>("wmma f16 in f16");
    run_layouts<16, 16, 8, wmma::precision::tf32, float>("wmma tf32");
    run_wmma<8, 32, 16, __nv_bfloat16, float, wmma::row_major, wmma::col_major>("wmma 8x32 bf16");
    run_wmma<32, 8, 16, __nv_bfloat16, float, wmma::col_major, wmma::row_major>("wmma 32x8 bf16");
    run_wmma<8, 32, 16, __half, float, wmma::col_major, wmma::row_major>("wmma 8x32 f16");
    run_wmma<32, 8, 16, __half, __half, wmma::row_major, wmma::col_major>("wmma 32x8 f16");
    run_mma<MmaF16, __half, 16>("mma f16");
    run_mma<MmaBf16, __nv_bfloat16, 16>("mma bf16");
    run_mma<MmaF16Short, __half, 8>("mma f16 k8");
    run_mma<MmaBf16Short, __nv_bfloat16, 8>("mma bf16 k8");
    run_mma<MmaTf32, float, 8>("mma tf32");
    run_mma<MmaTf32Short, float, 4>("mma tf32 k4");
    run_in_halves();
    run_ldmatrix();
    run_loaded();
    run_hinted();
    return sample_wrong != 0;
}
