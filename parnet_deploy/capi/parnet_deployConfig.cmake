# find_package(parnet_deploy): the target parnet_deploy::parnet_deploy, built from source against
# the Python that CMake finds. To choose it: cmake -DPython3_EXECUTABLE=.venv/bin/python
if(TARGET parnet_deploy::parnet_deploy)
  return()
endif()

enable_language(C)
find_package(Threads REQUIRED)
find_package(Python3 3.10 REQUIRED COMPONENTS Interpreter Development.Embed)

execute_process(
  COMMAND "${Python3_EXECUTABLE}" -m parnet_deploy.capi --cmake-dir
  RESULT_VARIABLE parnet_deploy_missing OUTPUT_QUIET ERROR_QUIET)
if(parnet_deploy_missing)
  message(FATAL_ERROR "parnet_deploy: not installed in ${Python3_EXECUTABLE}. "
                      "Name the Python that has it: -DPython3_EXECUTABLE=.venv/bin/python")
endif()

file(STRINGS "${CMAKE_CURRENT_LIST_DIR}/include/parnet_deploy.h" parnet_deploy_abi
     REGEX "define PARNET_ABI_VERSION")
string(REGEX MATCH "[0-9]+$" parnet_deploy_abi "${parnet_deploy_abi}")

add_library(parnet_deploy SHARED "${CMAKE_CURRENT_LIST_DIR}/parnet_deploy.c")
add_library(parnet_deploy::parnet_deploy ALIAS parnet_deploy)
set_target_properties(parnet_deploy PROPERTIES
  C_STANDARD 11
  C_VISIBILITY_PRESET hidden
  SOVERSION "${parnet_deploy_abi}")
target_include_directories(parnet_deploy PUBLIC "${CMAKE_CURRENT_LIST_DIR}/include")
target_compile_definitions(parnet_deploy PRIVATE "PARNET_DEFAULT_PYTHON=\"${Python3_EXECUTABLE}\"")
target_link_libraries(parnet_deploy PRIVATE Python3::Python Threads::Threads ${CMAKE_DL_LIBS})
target_link_options(parnet_deploy PRIVATE -Wl,-z,nodelete) # Python stays, so must what calls it
