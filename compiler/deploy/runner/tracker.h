// A client of TVM's tracker: it tells who may be asked for a device, under a key.
#ifndef VITQ_TRACKER_H_
#define VITQ_TRACKER_H_

#include <string>

#include "net.h"

namespace vitq {

class Tracker {
 public:
  // `reached_at`: the host that clients are told, or empty for where the tracker sees this device.
  Tracker(Address address, std::string key, std::string reached_at);

  // Connects where it is not connected; tells the tracker which port is served. Throws Failure.
  void connect(int port);
  bool is_connected() const { return socket_.is_open(); }
  void disconnect() { socket_.close(); }

  // Offers this device once, under a new random word that a client has to know. Throws Failure.
  std::string offer(int port);
  // Whether nobody was given that word yet. Throws Failure.
  bool is_free(const std::string& word);

 private:
  std::string ask(const std::string& message);
  void command(const std::string& message);

  Address address_;
  std::string key_, reached_at_;  // the second as JSON
  Socket socket_;
};

}  // namespace vitq

#endif  // VITQ_TRACKER_H_
