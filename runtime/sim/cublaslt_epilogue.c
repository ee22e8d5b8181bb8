/* cublaslt_epilogue.c - what cuBLASLt does to a product before it is stored.
 *
 * In: a column of alpha * op(A) op(B) + beta * C in float, the bias, the auxiliary matrix.
 * Out: the column changed; for training, the auxiliary matrix (the bits of ReLU: which
 * elements were positive; the input of GELU) and the bias's gradient. GELU is the one with
 * tanh. Sums run over the columns in their order.
 */
#include <math.h>
#include <stdlib.h>

#include "cublaslt_product.h"

/* The bits of cublasLtEpilogue_t that have no names of their own. */
enum {
    WITH_AUX = CUBLASLT_EPILOGUE_RELU_AUX & ~CUBLASLT_EPILOGUE_RELU,
    OF_DRELU = CUBLASLT_EPILOGUE_DRELU & ~WITH_AUX,
    OF_DGELU = CUBLASLT_EPILOGUE_DGELU & ~WITH_AUX
};

static const float ROOT_2_BY_PI = 0.7978845608f, CUBE = 0.044715f;

bool product_epilogue_reads_bias(uint32_t epilogue)
{
    return (epilogue & CUBLASLT_EPILOGUE_BIAS) != 0;
}

bool product_epilogue_writes_bias(uint32_t epilogue)
{
    return epilogue == CUBLASLT_EPILOGUE_DRELU_BGRAD || epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD ||
           epilogue == CUBLASLT_EPILOGUE_BGRADA || epilogue == CUBLASLT_EPILOGUE_BGRADB;
}

bool product_epilogue_has_aux(uint32_t epilogue)
{
    return (epilogue & WITH_AUX) != 0;
}

static bool is_backward(uint32_t epilogue)
{
    return (epilogue & (OF_DRELU | OF_DGELU)) != 0;
}

bool product_epilogue_aux_is_bits(uint32_t epilogue)
{
    return (epilogue & (CUBLASLT_EPILOGUE_RELU | OF_DRELU)) != 0;
}

bool product_epilogue_writes_aux(uint32_t epilogue)
{
    return product_epilogue_has_aux(epilogue) && !is_backward(epilogue);
}

bool product_epilogue_is_known(uint32_t epilogue)
{
    switch (epilogue) {
    case CUBLASLT_EPILOGUE_DEFAULT:
    case CUBLASLT_EPILOGUE_RELU:
    case CUBLASLT_EPILOGUE_RELU_AUX:
    case CUBLASLT_EPILOGUE_BIAS:
    case CUBLASLT_EPILOGUE_RELU_BIAS:
    case CUBLASLT_EPILOGUE_RELU_AUX_BIAS:
    case CUBLASLT_EPILOGUE_DRELU:
    case CUBLASLT_EPILOGUE_DRELU_BGRAD:
    case CUBLASLT_EPILOGUE_GELU:
    case CUBLASLT_EPILOGUE_GELU_AUX:
    case CUBLASLT_EPILOGUE_GELU_BIAS:
    case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
    case CUBLASLT_EPILOGUE_DGELU:
    case CUBLASLT_EPILOGUE_DGELU_BGRAD:
    case CUBLASLT_EPILOGUE_BGRADA:
    case CUBLASLT_EPILOGUE_BGRADB:
        return true;
    default:
        return false;
    }
}

int64_t product_bias_length(const Product *p)
{
    return p->epilogue == CUBLASLT_EPILOGUE_BGRADB ? p->n : p->m;
}

static float gelu(float x)
{
    return 0.5f * x * (1.0f + tanhf(ROOT_2_BY_PI * (x + CUBE * x * x * x)));
}

static float gelu_slope(float x)
{
    float t = tanhf(ROOT_2_BY_PI * (x + CUBE * x * x * x));
    float inner = ROOT_2_BY_PI * (1.0f + 3.0f * CUBE * x * x);
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
}

static void relu(const Product *p, uint8_t *bits, float *column)
{
    for (int64_t i = 0; bits && i < (p->m + 127) / 128 * 16; i++)
        bits[i] = 0;
    for (int64_t i = 0; i < p->m; i++) {
        if (bits && column[i] > 0)
            bits[i / 8] = (uint8_t)(bits[i / 8] | 1 << i % 8);
        column[i] = column[i] < 0 ? 0 : column[i]; /* NaN stays */
    }
}

static void forward(const Product *p, void *aux, float *column)
{
    if (p->epilogue & CUBLASLT_EPILOGUE_RELU) {
        relu(p, aux, column);
    } else if (p->epilogue & CUBLASLT_EPILOGUE_GELU) {
        if (aux)
            sim_product_store(column, p->m, aux, p->aux_type, 1);
        for (int64_t i = 0; i < p->m; i++)
            column[i] = gelu(column[i]);
    }
}

static void backward(const Product *p, const void *aux, float *column)
{
    if ((p->epilogue & CUBLASLT_EPILOGUE_DRELU) == CUBLASLT_EPILOGUE_DRELU) {
        const uint8_t *bits = aux;
        for (int64_t i = 0; i < p->m; i++)
            column[i] = bits[i / 8] >> i % 8 & 1 ? column[i] : 0;
        return;
    }
    const char *from = aux;
    float input[256];
    for (int64_t i = 0; i < p->m; i += 256) {
        int64_t n = p->m - i < 256 ? p->m - i : 256;
        sim_product_load(from + i * sim_product_size_of(p->aux_type), p->aux_type, 1, n, input);
        for (int64_t q = 0; q < n; q++)
            column[i + q] *= gelu_slope(input[q]);
    }
}

void product_epilogue(const Product *p, const ProductExtras *extras, int64_t j, float *column)
{
    char *aux = extras->aux;
    if (aux) {
        bool bits = product_epilogue_aux_is_bits(p->epilogue);
        aux += bits ? j * p->aux_ld / 8 : j * p->aux_ld * sim_product_size_of(p->aux_type);
    }
    if (product_epilogue_reads_bias(p->epilogue)) {
        const char *from = extras->bias;
        float bias[256];
        for (int64_t i = 0; i < p->m; i += 256) {
            int64_t n = p->m - i < 256 ? p->m - i : 256;
            sim_product_load(from + i * sim_product_size_of(p->bias_type), p->bias_type, 1, n,
                             bias);
            for (int64_t q = 0; q < n; q++)
                column[i + q] += bias[q];
        }
    }
    if (is_backward(p->epilogue))
        backward(p, aux, column);
    else
        forward(p, aux, column);
    for (int64_t i = 0; extras->sums && i < p->m; i++)
        extras->sums[i] += column[i];
}

void product_sum_operand(const Product *p, const void *a, const void *b, void *bias)
{
    bool left = p->epilogue == CUBLASLT_EPILOGUE_BGRADA;
    const ProductMatrix *matrix = left ? &p->a : &p->b;
    bool transposed = left ? p->transpose_a : !p->transpose_b;
    /* Line i of the sums is row i of op(A) or column i of op(B). */
    bool lines_are_columns = transposed != matrix->row_major;
    int64_t line = lines_are_columns ? matrix->ld : 1, along = lines_are_columns ? 1 : matrix->ld;
    int size = sim_product_size_of(matrix->type);
    for (int64_t i = 0; i < product_bias_length(p); i++) {
        const char *from = (const char *)(left ? a : b) + i * line * size;
        float sum = 0, part[256];
        for (int64_t q = 0; q < p->k; q += 256) {
            int64_t n = p->k - q < 256 ? p->k - q : 256;
            sim_product_load(from + q * along * size, matrix->type, along, n, part);
            for (int64_t r = 0; r < n; r++)
                sum += part[r];
        }
        sim_product_store(&sum, 1, (char *)bias + i * sim_product_size_of(p->bias_type),
                          p->bias_type, 1);
    }
}
