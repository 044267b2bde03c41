#include "greeting.h"

#include <poll.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "failure.h"

namespace vitq {
namespace {

constexpr int32_t kMagic = 0xFF271;
constexpr int32_t kMismatch = kMagic + 2;
constexpr size_t kHead = 8;  // the magic number and the greeting's length
constexpr size_t kLongestGreeting = 1024;
constexpr int kHandshakeS = 5;
constexpr size_t kMostWaiting = 32;

int32_t number_at(const std::string& bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) {
    value |= static_cast<uint32_t>(static_cast<unsigned char>(bytes[at + i])) << (8 * i);
  }
  return static_cast<int32_t>(value);
}

// How many bytes the greeting has as far as it is known. Throws Failure if it is none.
size_t wanted_bytes(const std::string& received) {
  if (received.size() >= 4 && number_at(received, 0) != kMagic) throw Failure("no TVM client");
  if (received.size() < kHead) return kHead;
  const auto size = static_cast<size_t>(static_cast<uint32_t>(number_at(received, 4)));
  if (size > kLongestGreeting) throw Failure("an impossible length was received");
  return kHead + size;
}

enum class State { kSilent, kWhole, kGone };

// Reads what is there.
State look(const Socket& connection, std::string* received) {
  try {
    for (size_t wanted = wanted_bytes(*received); received->size() < wanted;
         wanted = wanted_bytes(*received)) {
      const std::string more = connection.receive_some(wanted - received->size());
      if (more.empty()) return State::kSilent;
      *received += more;
    }
    return State::kWhole;
  } catch (const Failure&) {
    return State::kGone;
  }
}

void refuse(const Socket& connection) {
  try {
    connection.send_integer(kMismatch);
  } catch (const Failure&) {  // it is gone: all the better
  }
}

}  // namespace

// The longest waiting one makes room.
void Door::accept() {
  if (waiting_.size() >= kMostWaiting) waiting_.pop_front();
  const auto deadline = Clock::now() + std::chrono::seconds(kHandshakeS);
  try {
    waiting_.push_back({listening_.accept(), "", deadline});
  } catch (const Failure&) {  // whoever knocked is gone
  }
}

// Until something happens at the door; true if somebody new is there.
bool Door::wait(Clock::time_point end) {
  std::vector<pollfd> wanted{{listening_.descriptor(), POLLIN, 0}};
  for (const Waiting& guest : waiting_) {
    wanted.push_back({guest.connection.descriptor(), POLLIN, 0});
    end = std::min(end, guest.deadline);
  }
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
  const int timeout_ms = static_cast<int>(std::max<int64_t>(left.count() + 1, 0));
  return poll(wanted.data(), wanted.size(), timeout_ms) > 0 && wanted[0].revents != 0;
}

Guest Door::admit(const std::string& word, int timeout_ms, bool (*is_over)()) {
  const auto end = Clock::now() + std::chrono::milliseconds(timeout_ms);
  while (!is_over() && Clock::now() < end) {
    if (wait(end)) accept();
    for (auto guest = waiting_.begin(); guest != waiting_.end();) {
      const State state = look(guest->connection, &guest->received);
      if (state == State::kSilent && Clock::now() < guest->deadline) {
        ++guest;
        continue;
      }
      Waiting taken = std::move(*guest);
      guest = waiting_.erase(guest);
      if (state != State::kWhole) continue;
      const std::string greeting = taken.received.substr(kHead);
      if (greeting.substr(0, greeting.find(' ')) == "client:" + word) {
        return {std::move(taken.connection), greeting};
      }
      refuse(taken.connection);
    }
  }
  return {Socket(), ""};
}

}  // namespace vitq
