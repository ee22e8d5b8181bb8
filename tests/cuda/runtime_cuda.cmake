# The tests of the runtime of GPUs: a model of two stages, built by the toolkit and run under the
# simulated GPU. Included where CUDAToolkit is found.
find_package(PkgConfig REQUIRED)
pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
set(RUNTIME_CUDA_DIR ${CMAKE_CURRENT_LIST_DIR})
set(RUNTIME_CUDA_ROOT ${RUNTIME_CUDA_DIR}/../..)
set(RUNTIME_CUDA_SIM ${CMAKE_BINARY_DIR}/lib/mdl/sim)

cuda_object(RUNTIME_CUDA_OBJECTS ${RUNTIME_CUDA_DIR}/two_stages_kernels.cu)

add_library(runtime_cuda_stages STATIC ${RUNTIME_CUDA_DIR}/two_stages_cuda.c
            ${RUNTIME_CUDA_OBJECTS})
set_target_properties(runtime_cuda_stages PROPERTIES C_STANDARD 17 C_EXTENSIONS OFF)
target_compile_definitions(runtime_cuda_stages PRIVATE _GNU_SOURCE)
target_include_directories(runtime_cuda_stages PUBLIC ${RUNTIME_CUDA_DIR}/../runtime)
target_link_libraries(runtime_cuda_stages PUBLIC mdl_rt_cuda test_gpu_kernels)
# The runtime, which stands behind this library, calls them.
target_link_options(runtime_cuda_stages INTERFACE -Wl,-u,gpu_status_text,-u,gpu_probe)

add_executable(two_stages_gpu ${RUNTIME_CUDA_DIR}/two_stages_main.c)
target_link_libraries(two_stages_gpu PRIVATE runtime_cuda_stages)
add_executable(two_stages_host ${RUNTIME_CUDA_DIR}/two_stages_main.c
               ${RUNTIME_CUDA_DIR}/../runtime/two_stages.c)
target_include_directories(two_stages_host PRIVATE ${RUNTIME_CUDA_DIR}/../runtime)
target_compile_definitions(two_stages_host PRIVATE _GNU_SOURCE)
target_link_libraries(two_stages_host PRIVATE mdl_rt)

add_executable(test_gpu_training ${RUNTIME_CUDA_DIR}/test_gpu_training.c
               ${RUNTIME_CUDA_DIR}/../runtime/two_stages_failures.c
               ${RUNTIME_CUDA_DIR}/../runtime/workshop.c)
target_compile_definitions(test_gpu_training PRIVATE _GNU_SOURCE)
target_link_libraries(test_gpu_training PRIVATE runtime_cuda_stages PkgConfig::CMOCKA)

# Real libraries are found by their paths in the executables; the simulated ones come first.
set_target_properties(two_stages_gpu two_stages_host test_gpu_training PROPERTIES
                      C_STANDARD 17 C_EXTENSIONS OFF)
target_link_options(two_stages_gpu PRIVATE -Wl,--enable-new-dtags)
target_link_options(test_gpu_training PRIVATE -Wl,--enable-new-dtags)

add_test(NAME cuda_runtime_training COMMAND test_gpu_training)
set_tests_properties(cuda_runtime_training PROPERTIES LABELS cuda TIMEOUT 300 ENVIRONMENT
  "LD_LIBRARY_PATH=${RUNTIME_CUDA_SIM};TWO_STAGES_HOST=$<TARGET_FILE:two_stages_host>")
add_test(NAME cuda_runtime_messages
         COMMAND sh ${RUNTIME_CUDA_DIR}/messages.sh $<TARGET_FILE:two_stages_gpu>
                 ${RUNTIME_CUDA_SIM})
set_tests_properties(cuda_runtime_messages PROPERTIES LABELS cuda TIMEOUT 600)

find_path(MDL_NCCL_INCLUDE nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(MDL_NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
if(MDL_NCCL_INCLUDE AND MDL_NCCL_LIBRARY)
  add_executable(test_gpu_nccl ${RUNTIME_CUDA_DIR}/test_gpu_nccl.c
                 ${RUNTIME_CUDA_DIR}/../runtime/workshop.c)
  set_target_properties(test_gpu_nccl PROPERTIES C_STANDARD 17 C_EXTENSIONS OFF)
  target_compile_definitions(test_gpu_nccl PRIVATE _GNU_SOURCE)
  target_include_directories(test_gpu_nccl SYSTEM PRIVATE ${MDL_NCCL_INCLUDE})
  target_link_libraries(test_gpu_nccl PRIVATE runtime_cuda_stages ${MDL_NCCL_LIBRARY}
                        PkgConfig::CMOCKA)
  target_link_options(test_gpu_nccl PRIVATE -Wl,--enable-new-dtags)
  add_test(NAME cuda_runtime_nccl COMMAND test_gpu_nccl)
  set_tests_properties(cuda_runtime_nccl PROPERTIES LABELS cuda TIMEOUT 300 ENVIRONMENT
                       "LD_LIBRARY_PATH=${RUNTIME_CUDA_SIM}")
endif()
