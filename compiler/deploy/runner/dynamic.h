// Shared libraries by absolute path, opened after their hashes were checked.
#ifndef VITQ_DYNAMIC_H_
#define VITQ_DYNAMIC_H_

#include <dlfcn.h>

#include <string>

#include "failure.h"

namespace vitq {

inline void* open_library(const std::string& path, int scope) {
  void* library = dlopen(path.c_str(), RTLD_NOW | scope);
  if (!library) {
    const char* reason = dlerror();
    throw Failure(path + " cannot be loaded: " + (reason ? reason : "unknown reason"));
  }
  return library;
}

template <typename Function>
void find_symbol(void* library, const char* name, Function** function) {
  *function = reinterpret_cast<Function*>(dlsym(library, name));
  if (!*function) throw Failure(std::string("the library has no ") + name);
}

}  // namespace vitq

#endif  // VITQ_DYNAMIC_H_
