#include "net.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "failure.h"

namespace vitq {
namespace {

constexpr int kBacklog = 64;

std::string text_of_address(const Address& address) {
  return address.host + ":" + std::to_string(address.port);
}

[[noreturn]] void fail(const std::string& what) {
  throw Failure(what + ": " + std::strerror(errno));
}

using Found = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Found look_up(const Address& address, int flags) {
  addrinfo hints;
  std::memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(address.port);
  const int code = getaddrinfo(address.host.c_str(), port.c_str(), &hints, &found);
  if (code != 0) throw Failure(address.host + " is not found: " + gai_strerror(code));
  return Found(found, freeaddrinfo);
}

int socket_for(const addrinfo& info) {
  const int descriptor = socket(info.ai_family, info.ai_socktype | SOCK_CLOEXEC, info.ai_protocol);
  if (descriptor < 0) fail("no socket");
  return descriptor;
}

}  // namespace

Address parse_address(const std::string& option, const std::string& text) {
  const size_t colon = text.rfind(':');
  const std::string port = colon == std::string::npos ? "" : text.substr(colon + 1);
  char* end = nullptr;
  const long number = std::strtol(port.c_str(), &end, 10);
  if (port.empty() || *end != '\0' || number < 1 || number > 65535 || colon == 0) {
    throw Failure(option + " " + text + ": write host:port");
  }
  std::string host = text.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return {host, static_cast<int>(number)};
}

Socket& Socket::operator=(Socket&& other) noexcept {
  close();
  descriptor_ = other.release();
  return *this;
}

Socket Socket::connect_to(const Address& address, int timeout_s) {
  const Found found = look_up(address, 0);
  Socket result(socket_for(*found));
  result.set_timeout(timeout_s);  // the kernel applies it to connecting, too
  if (::connect(result.descriptor_, found->ai_addr, found->ai_addrlen) != 0) {
    fail(text_of_address(address));
  }
  return result;
}

Socket Socket::listen_on(const Address& address) {
  const Found found = look_up(address, AI_PASSIVE);
  Socket result(socket_for(*found));
  const int yes = 1;
  setsockopt(result.descriptor_, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (::bind(result.descriptor_, found->ai_addr, found->ai_addrlen) != 0 ||
      ::listen(result.descriptor_, kBacklog) != 0) {
    fail(text_of_address(address));
  }
  return result;
}

int Socket::port() const {
  sockaddr_storage name;
  socklen_t size = sizeof name;
  if (getsockname(descriptor_, reinterpret_cast<sockaddr*>(&name), &size) != 0) fail("no port");
  const bool is_v6 = name.ss_family == AF_INET6;
  return ntohs(is_v6 ? reinterpret_cast<sockaddr_in6*>(&name)->sin6_port
                     : reinterpret_cast<sockaddr_in*>(&name)->sin_port);
}

Socket Socket::accept() const {
  Socket result(::accept(descriptor_, nullptr, nullptr));
  if (!result.is_open()) fail("accepting a connection");
  const int yes = 1;
  // A client that vanished without a word is noticed; small messages are not held back.
  setsockopt(result.descriptor_, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
  setsockopt(result.descriptor_, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  return result;
}

bool Socket::wait(int timeout_ms) const {
  pollfd wanted{descriptor_, POLLIN, 0};
  return poll(&wanted, 1, timeout_ms) > 0;
}

void Socket::set_timeout(int seconds) const {
  const timeval limit{seconds, 0};
  setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(descriptor_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

void Socket::send(const std::string& bytes) const {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t sent = ::send(descriptor_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (sent < 0) fail("sending");
    done += static_cast<size_t>(sent);
  }
}

std::string Socket::receive(size_t bytes) const {
  std::string result(bytes, '\0');
  for (size_t done = 0; done < bytes;) {
    const ssize_t got = ::recv(descriptor_, &result[done], bytes - done, 0);
    if (got < 0) fail("receiving");
    if (got == 0) throw Failure("the other end closed the connection");
    done += static_cast<size_t>(got);
  }
  return result;
}

std::string Socket::receive_some(size_t most) const {
  std::string result(most, '\0');
  const ssize_t got = ::recv(descriptor_, &result[0], most, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return "";
  if (got < 0) fail("receiving");
  if (got == 0) throw Failure("the other end closed the connection");
  result.resize(static_cast<size_t>(got));
  return result;
}

void Socket::send_integer(int32_t number) const {
  const auto value = static_cast<uint32_t>(number);
  std::string bytes;
  for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(value >> shift & 255);
  send(bytes);
}

int32_t Socket::receive_integer() const {
  const std::string bytes = receive(4);
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) {
    value |= static_cast<uint32_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  }
  return static_cast<int32_t>(value);
}

void Socket::send_text(const std::string& text) const {
  send_integer(static_cast<int32_t>(text.size()));
  send(text);
}

std::string Socket::receive_text(int32_t limit) const {
  const int32_t size = receive_integer();
  if (size < 0 || size > limit) throw Failure("an impossible length was received");
  return receive(static_cast<size_t>(size));
}

int Socket::release() {
  const int descriptor = descriptor_;
  descriptor_ = -1;
  return descriptor;
}

void Socket::close() {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

}  // namespace vitq
