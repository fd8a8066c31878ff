# Sets `result` to the GPUs that a CUDA compiler of this version should compile for: machine code for A100, H100/H200 and
# B200 as far as it knows them, and PTX that the driver compiles for any other from A100 on.
function(reserve_cuda_architectures version result)
  set(known 80-real 90a-real)
  if(version VERSION_GREATER_EQUAL 12.8)
    list(APPEND known 100-real)
  endif()
  set(${result} ${known} 80-virtual PARENT_SCOPE)
endfunction()
