/* Stands in for NVIDIA's driver library on a machine that compiles but has no GPU: TVM's CUDA
 * runtime, which the code generator needs, does not load without these names. Every call fails. */
#define FAILS(name) \
  int name(void) { return 100; /* CUDA_ERROR_NO_DEVICE */ }
FAILS(cuDeviceGetName)
FAILS(cuFuncSetAttribute)
FAILS(cuGetErrorName)
FAILS(cuGetErrorString)
FAILS(cuLaunchKernelEx)
FAILS(cuModuleGetFunction)
FAILS(cuModuleLoadData)
FAILS(cuModuleUnload)
FAILS(cuTensorMapEncodeTiled)
