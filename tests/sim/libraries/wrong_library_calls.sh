#!/bin/sh
# wrong_library_calls.sh PROGRAM - every mistake must be found, by every seed and in every
# schedule: exit code 86 and a report of this kind with these words.
set -u
program=$1
report=$(mktemp) || exit 2
cases=$(mktemp) || exit 2
trap 'rm -f "$report" "$cases"' EXIT
export MDL_SIM_TIMEOUT=1
failed=0
passed=0

cat >"$cases" <<'TABLE'
workspace_shared              race           cublasSgemm_v2  workspace
workspace_too_large           out-of-bounds  cublasSetWorkspace_v2  16385
workspace_of_other_device     wrong-device   cublasSetWorkspace_v2
result_over_operand           race           cublasSgemm_v2  overlaps
results_of_batch_overlap      race           cublasSgemmStridedBatched  overlap
matrix_misaligned             misaligned     cublasSgemm_v2  A
scalar_on_device              host-access    cublasSgemm_v2  alpha
scalar_on_host                host-pointer   cublasSgemm_v2  alpha
handle_on_other_device        wrong-device   cublasSgemm_v2
vector_out_of_bounds          out-of-bounds  cublasSscal_v2
failure_unnoticed             after-failure  cublasSgemm_v2  CUBLAS_STATUS_INVALID_VALUE
unknown_product               unknown        cublasSsymm_v2
descriptor_destroyed          misuse         cublasLtMatmulDesc_t  destroyed
descriptor_leak               leak           cuBLASLt
unknown_attribute             unknown        cublasLtMatmulDescSetAttribute  17
unknown_transform             unknown        cublasLtMatrixTransform
bias_out_of_bounds            out-of-bounds  cublasLtMatmul  bias
two_communicators             deadlock       ncclAllReduce  communicator
calls_out_of_order            deadlock       ncclRecv  ncclSend
second_message_differs        nccl-mismatch  ncclSend  float32  ncclRecv  float64
message_counts_differ         nccl-mismatch  ncclSend  16  ncclRecv  15
send_tells_nothing            race           cudaMemcpyPeerAsync  cudaMemsetAsync
root_learns_nothing           race           cudaMemcpyPeerAsync  cudaMemsetAsync
reductions_differ             nccl-mismatch  ncclAllReduce  reductions
group_writes_what_it_sends    race           ncclSend  ncclRecv
not_in_place                  misuse         ncclAllReduce  overlap
message_never_received        deadlock       ncclCommDestroy  ncclSend
rank_never_joins              deadlock       ncclCommInitRank
rank_joins_twice              misuse         ncclCommInitRank  second
sizes_of_communicator_differ  nccl-mismatch  ncclCommInitRank  3
communicator_destroyed        misuse         ncclSend  destroyed
communicator_aborted          misuse         ncclAllReduce  aborted
communicator_finalized        misuse         ncclSend  finalized
communicator_leak             leak           communicator
unknown_reduction             unknown        ncclAllReduce  float8e4m3
unknown_split                 unknown        ncclCommSplit
TABLE

complain()
{
    printf '%s: %s\n' "$name" "$1"
    head -n 20 "$report"
    failed=$((failed + 1))
}

try()
{
    timeout 60 env "$@" "$program" "$name" >/dev/null 2>"$report"
    code=$?
    if [ "$code" -ne 86 ]; then
        complain "$*: exit code $code"
        return
    fi
    if ! grep -q "^mdl-sim: $kind: " "$report"; then
        complain "$*: no finding of kind $kind"
        return
    fi
    for word in $words; do
        if ! grep -qF -e "$word" "$report"; then
            complain "$*: the report lacks $word"
            return
        fi
    done
    passed=$((passed + 1))
}

while read -r name kind words; do
    for seed in 1 2 3; do
        try MDL_SIM_SEED="$seed"
    done
    for schedule in eager fifo lifo; do
        try MDL_SIM_SCHEDULE="$schedule"
    done
done <"$cases"

# no finding: the call's own status, 13 for EXECUTION_FAILED
name=failure_asked_for
MDL_SIM_FAIL=cublasSgemm:2 "$program" "$name" >/dev/null 2>"$report"
if grep -q 'error 13' "$report"; then
    passed=$((passed + 1))
else
    complain "the second call does not fail"
fi
listed=$(($(wc -l <"$cases") + 1))
if [ "$("$program" | wc -l)" -ne "$listed" ]; then
    name=cases
    complain "not all are listed here"
fi
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
