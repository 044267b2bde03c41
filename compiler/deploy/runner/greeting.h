// Clients at the door: they are waited for side by side, so that a silent one delays nobody.
#ifndef VITQ_GREETING_H_
#define VITQ_GREETING_H_

#include <chrono>
#include <list>
#include <string>

#include "net.h"

namespace vitq {

struct Guest {
  Socket connection;
  std::string greeting;  // "client:WORD ..."; empty: nobody came
};

class Door {
 public:
  explicit Door(const Socket& listening) : listening_(listening) {}

  // Waits at most so long for a client that says "client:" and `word`. All others are sent away:
  // those that say something else at once, the silent ones after a while or when too many wait.
  Guest admit(const std::string& word, int timeout_ms, bool (*is_over)());

  // Sends away whoever is waiting.
  void clear() { waiting_.clear(); }

 private:
  using Clock = std::chrono::steady_clock;
  struct Waiting {
    Socket connection;
    std::string received;
    Clock::time_point deadline;
  };

  void accept();
  bool wait(Clock::time_point end);

  const Socket& listening_;
  std::list<Waiting> waiting_;
};

}  // namespace vitq

#endif  // VITQ_GREETING_H_
