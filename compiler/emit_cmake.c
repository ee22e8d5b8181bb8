/* emit_cmake.c - the CMakeLists.txt beside the emitted files. */
#include "emit.h"

static EmittedFile cmake_host(const Program *p)
{
    Arena *a = p->graph->arena;
    Text t = {.arena = a};
    const char *f64 = p->real_size == 8 ? "_f64" : "";
    text_printf(&t,
                "# Builds the trainer of the model %s. MDL_HOME is where mdlc is installed:\n"
                "#     cmake -B build -DMDL_HOME=/usr/local && cmake --build build\n"
                "cmake_minimum_required(VERSION 3.18)\n"
                "project(trainer C)\n"
                "set(CMAKE_C_STANDARD 17)\n"
                "if(NOT CMAKE_BUILD_TYPE)\n"
                "  set(CMAKE_BUILD_TYPE Release)\n"
                "endif()\n"
                "set(MDL_HOME \"/usr/local\" CACHE PATH \"where mdlc is installed\")\n"
                "if(NOT EXISTS ${MDL_HOME}/include/mdl/rt.h)\n"
                "  message(FATAL_ERROR \"set -DMDL_HOME to where mdlc is installed, or to its \"\n"
                "                      \"build directory\")\n"
                "endif()\n"
                "add_executable(trainer trainer.c",
                p->model->name);
    for (int i = 0; i < p->devices.n; i++)
        text_printf(&t, "%sstage_%d.c", i % 6 == 5 ? "\n               " : " ", i);
    text_printf(&t,
                ")\n"
                "target_include_directories(trainer SYSTEM PRIVATE ${MDL_HOME}/include/mdl)\n"
                "target_compile_definitions(trainer PRIVATE%s)\n"
                "target_compile_options(trainer PRIVATE -O3 -march=native -ffp-contract=off\n"
                "                       -fno-math-errno -fno-trapping-math)\n"
                "target_link_directories(trainer PRIVATE ${MDL_HOME}/lib/mdl)\n"
                "target_link_libraries(trainer PRIVATE mdl_rt%s mdl_kernels%s\n"
                "                      jansson xxhash z pthread m)\n"
                "if(EXISTS ${MDL_HOME}/lib/mdl/libraries) # what the kernels were built to need\n"
                "  file(STRINGS ${MDL_HOME}/lib/mdl/libraries libraries)\n"
                "  target_link_libraries(trainer PRIVATE ${libraries})\n"
                "endif()\n",
                p->real_size == 8 ? " MDL_F64" : "", f64, f64);
    return (EmittedFile){"CMakeLists.txt", t.at};
}

static EmittedFile cmake_cuda(const Program *p)
{
    Arena *a = p->graph->arena;
    Text t = {.arena = a};
    bool nccl = p->transfer == TRANSFER_NCCL && p->links.n;
    text_printf(
        &t,
        "# Builds the trainer of the model %s. MDL_HOME is where mdlc is installed;\n"
        "# CMAKE_CUDA_ARCHITECTURES which GPUs it is for:\n"
        "#     cmake -B build -DMDL_HOME=/usr/local && cmake --build build\n"
        "cmake_minimum_required(VERSION 3.18)\n"
        "option(MDL_SIM \"For the simulated GPU, in MDL_HOME/lib/mdl/sim\" OFF)\n"
        "if(MDL_SIM) # which wants PTX as text and the runtime as a library\n"
        "  set(CMAKE_CUDA_ARCHITECTURES 80-virtual)\n"
        "  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)\n"
        "elseif(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)\n"
        "  set(CMAKE_CUDA_ARCHITECTURES 80 86 89 90 100 120)\n"
        "endif()\n"
        "project(trainer C CXX CUDA)\n"
        "if(MDL_SIM)\n"
        "  add_compile_options($<$<COMPILE_LANGUAGE:CUDA>:-no-compress>\n"
        "                      $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo> -g)\n"
        "endif()\n"
        "find_package(CUDAToolkit REQUIRED)\n"
        "set(CMAKE_C_STANDARD 17)\n"
        "set(CMAKE_CUDA_STANDARD 17)\n"
        "if(NOT CMAKE_BUILD_TYPE)\n"
        "  set(CMAKE_BUILD_TYPE Release)\n"
        "endif()\n"
        "set(MDL_HOME \"/usr/local\" CACHE PATH \"where mdlc is installed\")\n"
        "if(NOT EXISTS ${MDL_HOME}/include/mdl/rt_cuda.h)\n"
        "  message(FATAL_ERROR \"set -DMDL_HOME to where mdlc is installed, or to its \"\n"
        "                      \"build directory\")\n"
        "endif()\n"
        "file(GLOB kernels ${MDL_HOME}/share/mdl/kernels/*.cu\n"
        "     ${MDL_HOME}/share/mdl/kernels/*.c)\n"
        "add_library(kernels_cuda STATIC ${kernels})\n"
        "target_include_directories(kernels_cuda SYSTEM PUBLIC ${MDL_HOME}/include/mdl)\n"
        "target_include_directories(kernels_cuda SYSTEM PUBLIC ${CUDAToolkit_INCLUDE_DIRS})\n"
        "target_link_libraries(kernels_cuda PUBLIC CUDA::cublas CUDA::cublasLt)\n"
        "add_executable(trainer trainer.c",
        p->model->name);
    for (int i = 0; i < p->devices.n; i++)
        text_printf(&t, "%sstage_%d.c", i % 6 == 5 ? "\n               " : " ", i);
    text_printf(&t,
                ")\n"
                "if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/fused.cu)\n"
                "  target_sources(trainer PRIVATE fused.cu)\n"
                "  set_source_files_properties(fused.cu PROPERTIES COMPILE_OPTIONS -fmad=false)\n"
                "endif()\n"
                "target_include_directories(trainer PRIVATE ${MDL_HOME}/share/mdl/kernels)\n"
                "target_link_directories(trainer PRIVATE ${MDL_HOME}/lib/mdl)\n"
                "target_link_libraries(trainer PRIVATE mdl_rt_cuda kernels_cuda%s mdl_kernels\n"
                "                      jansson xxhash z pthread m ${CMAKE_DL_LIBS})\n"
                "if(EXISTS ${MDL_HOME}/lib/mdl/libraries) # what the kernels were built to need\n"
                "  file(STRINGS ${MDL_HOME}/lib/mdl/libraries libraries)\n"
                "  target_link_libraries(trainer PRIVATE ${libraries})\n"
                "endif()\n",
                nccl ? " nccl" : "");
    return (EmittedFile){"CMakeLists.txt", t.at};
}

EmittedFile emit_cmake(const Program *p)
{
    return p->transfer == TRANSFER_LINKS ? cmake_host(p) : cmake_cuda(p);
}
