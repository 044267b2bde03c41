// One client's session: a process of its own, in a folder of its own, for a limited time.
#ifndef VITQ_SESSION_H_
#define VITQ_SESSION_H_

#include <string>

#include "net.h"
#include "runtime.h"

namespace vitq {

// Serves TVM's RPC on a connection until the client closes it, the time is over, or this process
// is told to end (`is_over`). Whatever the client's code does stays in the session's process.
// Returns what there is to say, empty if nothing.
std::string serve_session(const Runtime& runtime, const std::string& description, Socket connection,
                          int limit_s, bool (*is_over)());

}  // namespace vitq

#endif  // VITQ_SESSION_H_
