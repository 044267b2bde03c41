// TCP with time limits, and the framing that TVM's tracker and servers share.
#ifndef VITQ_NET_H_
#define VITQ_NET_H_

#include <cstdint>
#include <string>

namespace vitq {

struct Address {
  std::string host;
  int port;
};

// host:port or [v6 address]:port. Throws Failure.
Address parse_address(const std::string& option, const std::string& text);

// A connection, closed at the end of its scope. All that fails throws Failure.
class Socket {
 public:
  explicit Socket(int descriptor = -1) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(other.release()) {}
  Socket& operator=(Socket&& other) noexcept;
  ~Socket() { close(); }

  static Socket connect_to(const Address& address, int timeout_s);
  // Port 0 takes a free one.
  static Socket listen_on(const Address& address);

  int descriptor() const { return descriptor_; }
  bool is_open() const { return descriptor_ >= 0; }
  int port() const;
  Socket accept() const;
  // Whether there is something to read or accept; false after the time, or at a signal.
  bool wait(int timeout_ms) const;
  void set_timeout(int seconds) const;  // 0: none
  void send(const std::string& bytes) const;
  std::string receive(size_t bytes) const;
  std::string receive_some(size_t most) const;  // what is there; empty if that is nothing yet
  void send_integer(int32_t number) const;
  int32_t receive_integer() const;
  void send_text(const std::string& text) const;      // its length first
  std::string receive_text(int32_t limit) const;
  int release();
  void close();

 private:
  int descriptor_;
};

}  // namespace vitq

#endif  // VITQ_NET_H_
