# The tests of the runtime of GPUs: a model of two stages, built by the toolkit and run under the
# simulated GPU. Included where CUDAToolkit is found.
find_package(PkgConfig REQUIRED)
pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
set(RUNTIME_CUDA_DIR ${CMAKE_CURRENT_LIST_DIR})
set(RUNTIME_CUDA_ROOT ${RUNTIME_CUDA_DIR}/../..)
set(RUNTIME_CUDA_SIM ${CMAKE_BINARY_DIR}/lib/mdl/sim)

file(GLOB RUNTIME_CUDA_KERNELS CONFIGURE_DEPENDS ${RUNTIME_CUDA_ROOT}/kernels/cuda/*.cu)
file(GLOB RUNTIME_CUDA_HEADERS CONFIGURE_DEPENDS ${RUNTIME_CUDA_ROOT}/kernels/cuda/*.cuh)
foreach(source ${RUNTIME_CUDA_KERNELS} ${RUNTIME_CUDA_DIR}/two_stages_kernels.cu)
  get_filename_component(name ${source} NAME_WE)
  set(object ${CMAKE_CURRENT_BINARY_DIR}/runtime_cuda/${name}.o)
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/runtime_cuda
    COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} -std=c++17 -O3 -lineinfo -no-compress -cudart shared
            -gencode arch=compute_80,code=compute_80 -I${RUNTIME_CUDA_ROOT}/kernels
            -I${RUNTIME_CUDA_ROOT}/kernels/cuda -I${RUNTIME_CUDA_DIR} -c ${source} -o ${object}
    DEPENDS ${source} ${RUNTIME_CUDA_HEADERS} ${RUNTIME_CUDA_ROOT}/kernels/cuda/gpu.h
            ${RUNTIME_CUDA_DIR}/two_stages_cuda.h
    VERBATIM)
  list(APPEND RUNTIME_CUDA_OBJECTS ${object})
endforeach()

add_library(runtime_cuda_stages STATIC ${RUNTIME_CUDA_DIR}/two_stages_cuda.c
            ${RUNTIME_CUDA_ROOT}/kernels/cuda/status.c ${RUNTIME_CUDA_OBJECTS})
set_target_properties(runtime_cuda_stages PROPERTIES C_STANDARD 17 C_EXTENSIONS OFF)
target_compile_definitions(runtime_cuda_stages PRIVATE _GNU_SOURCE)
target_include_directories(runtime_cuda_stages PUBLIC ${RUNTIME_CUDA_DIR}/../runtime)
target_link_libraries(runtime_cuda_stages PUBLIC mdl_rt_cuda CUDA::cublas CUDA::cublasLt
                      CUDA::cudart stdc++)
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
               ${RUNTIME_CUDA_DIR}/../runtime/workshop.c)
target_compile_definitions(test_gpu_training PRIVATE _GNU_SOURCE)
target_link_libraries(test_gpu_training PRIVATE runtime_cuda_stages PkgConfig::CMOCKA)

# Real libraries are found by their paths in the executables; the simulated ones come first.
set_target_properties(two_stages_gpu two_stages_host test_gpu_training PROPERTIES
                      C_STANDARD 17 C_EXTENSIONS OFF)
target_link_options(two_stages_gpu PRIVATE -Wl,--enable-new-dtags)
target_link_options(test_gpu_training PRIVATE -Wl,--enable-new-dtags)

add_test(NAME cuda_runtime_training COMMAND test_gpu_training)
set_tests_properties(cuda_runtime_training PROPERTIES TIMEOUT 300 ENVIRONMENT
  "LD_LIBRARY_PATH=${RUNTIME_CUDA_SIM};TWO_STAGES_HOST=$<TARGET_FILE:two_stages_host>")
add_test(NAME cuda_runtime_messages
         COMMAND sh ${RUNTIME_CUDA_DIR}/messages.sh $<TARGET_FILE:two_stages_gpu>
                 ${RUNTIME_CUDA_SIM})
set_tests_properties(cuda_runtime_messages PROPERTIES TIMEOUT 600)
