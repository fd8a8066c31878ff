# Links shared libraries so that they load on every Linux whose glibc is `glibc` or newer, without a C++ runtime.
#
# A library that is linked on a machine asks for the newest version of each symbol that the machine's glibc has. zig brings
# stubs of the symbols of every glibc, so that it links as if on an old machine what the usual compilers compiled. The
# C++ runtime and CUDA's are linked statically and not exported. The unwinder is zig's: that of a new compiler asks for
# what old glibcs lack.
function(reserve_portable_link glibc zig)
  if(NOT zig)
    message(FATAL_ERROR "RESERVE_GLIBC needs RESERVE_ZIG, the command of zig")
  endif()
  target_sources(reserve_native PRIVATE ${CMAKE_SOURCE_DIR}/csrc/old_glibc.cpp)
  # libgcc has what __builtin_cpu_supports reads, which zig's own runtime would leave empty.
  set(runtime "")
  foreach(library libstdc++.a libgcc.a)
    execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=${library} OUTPUT_VARIABLE path
      OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
    string(APPEND runtime " ${path}")
  endforeach()
  list(JOIN zig " " zig)
  # --no-undefined: a symbol that this glibc lacks is an error here, and not where the library is loaded.
  string(CONCAT rule "${zig} cc -target ${CMAKE_SYSTEM_PROCESSOR}-linux-gnu.${glibc} -shared -s -Wl,--gc-sections "
    "-Wl,--no-undefined -Wl,--version-script=${CMAKE_SOURCE_DIR}/csrc/exported.map "
    "-o <TARGET> <OBJECTS> <LINK_LIBRARIES>${runtime} -lunwind -lpthread -ldl -lrt -lm")
  foreach(language CXX CUDA)
    set(CMAKE_${language}_CREATE_SHARED_LIBRARY "${rule}" PARENT_SCOPE)
  endforeach()
endfunction()
