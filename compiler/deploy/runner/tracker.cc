#include "tracker.h"

#include <cstdio>
#include <random>

#include "failure.h"
#include "json.h"

namespace vitq {
namespace {

constexpr int32_t kMagic = 0x2F271;
constexpr int kTimeoutS = 10;
constexpr int32_t kLongestAnswer = 1 << 20;
enum Code { kPut = 3, kUpdateInfo = 5, kPendingWords = 7 };

std::string random_word() {
  std::random_device source;
  char text[33];
  std::snprintf(text, sizeof text, "%08x%08x%08x%08x", source(), source(), source(), source());
  return text;
}

}  // namespace

Tracker::Tracker(Address address, std::string key, std::string reached_at)
    : address_(std::move(address)),
      key_(std::move(key)),
      reached_at_(reached_at.empty() ? "null" : quoted(reached_at)) {}

void Tracker::connect(int port) {
  if (is_connected()) return;
  socket_ = Socket::connect_to(address_, kTimeoutS);
  socket_.send_integer(kMagic);
  if (socket_.receive_integer() != kMagic) {
    disconnect();
    throw Failure(address_.host + ":" + std::to_string(address_.port) + " is no tracker");
  }
  command("[" + std::to_string(kUpdateInfo) + ", {\"key\": " + quoted("server:" + key_) +
          ", \"addr\": [" + reached_at_ + ", " + std::to_string(port) + "]}]");
}

std::string Tracker::offer(int port) {
  const std::string word = key_ + ":" + random_word();
  command("[" + std::to_string(kPut) + ", " + quoted(key_) + ", [" + std::to_string(port) + ", " +
          quoted(word) + "], " + reached_at_ + "]");
  return word;
}

bool Tracker::is_free(const std::string& word) {
  const std::string words = ask("[" + std::to_string(kPendingWords) + "]");
  return words.find(quoted(word)) != std::string::npos;
}

std::string Tracker::ask(const std::string& message) {
  socket_.send_text(message);
  return socket_.receive_text(kLongestAnswer);
}

void Tracker::command(const std::string& message) {
  const std::string answer = ask(message);
  if (answer != "0") throw Failure("the tracker refuses: " + answer.substr(0, 80));
}

}  // namespace vitq
