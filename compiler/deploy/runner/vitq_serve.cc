// vitq-serve: lets `vitq tune`, `verify` and `benchmark` measure on this device, through a tracker.
// TVM's RPC runs whatever code it is sent. Nothing listens before this program is started.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cpu.h"
#include "description.h"
#include "failure.h"
#include "greeting.h"
#include "manifest.h"
#include "net.h"
#include "runtime.h"
#include "session.h"
#include "tracker.h"

namespace vitq {
namespace {

constexpr const char* kUsage =
    "usage: vitq-serve --tracker HOST:PORT [options]\n"
    "  --key KEY      what clients ask the tracker for; the bundle's target if absent\n"
    "  --name NAME    of this device, for the records; its host name if absent\n"
    "  --listen HOST  the address to listen on; 127.0.0.1 if absent: this machine only\n"
    "  --port N       to listen on; a free one if absent\n"
    "  --reached-at HOST  where clients find this device, if the tracker sees it elsewhere\n"
    "  --bundle FOLDER  the program's own folder if absent\n"
    "Serves one client at a time until it is ended. It EXECUTES THE CODE THAT IT IS SENT: let only\n"
    "machines reach it that may do anything here, or keep it on 127.0.0.1 behind an SSH tunnel.\n";

constexpr int32_t kMagic = 0xFF271;
constexpr int kHandshakeS = 5;
constexpr int kLongestSessionS = 24 * 3600;
constexpr int kPingMs = 2000;
constexpr int kUnusedPings = 10;  // a word given away so long ago will not be used any more
constexpr int kRetryS = 2;

volatile sig_atomic_t over = 0;
bool is_over() { return over != 0; }

struct Options {
  std::string tracker, key, name, listen = "127.0.0.1", reached_at, bundle;
  int port = 0;
};

std::string host_name() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return *name ? name : "device";
}

// Words that need no quoting anywhere.
std::string plain(const std::string& option, const std::string& text) {
  const bool fine = !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '.' || c == '-' || c == '_';
  });
  if (!fine) throw Failure(option + " " + text + ": use letters, digits, dots, - and _");
  return text;
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (i + 1 >= argc) throw Failure(word + " needs a value; see vitq-serve --help");
    const std::string value = argv[++i];
    if (word == "--tracker") options.tracker = value;
    else if (word == "--key") options.key = plain(word, value);
    else if (word == "--name") options.name = plain(word, value);
    else if (word == "--listen") options.listen = value;
    else if (word == "--port") options.port = parse_address(word, "host:" + value).port;
    else if (word == "--reached-at") options.reached_at = plain(word, value);
    else if (word == "--bundle") options.bundle = value;
    else throw Failure("unknown option " + word + "; see vitq-serve --help");
  }
  if (options.tracker.empty()) throw Failure("give --tracker host:port; see vitq-serve --help");
  return options;
}

// What a client wrote behind the word that it was given: its own limit, in seconds.
int limit_of(const std::string& greeting) {
  const std::string name = " -timeout=";
  const size_t at = greeting.find(name);
  if (at == std::string::npos) return kLongestSessionS;
  const double seconds = std::strtod(greeting.c_str() + at + name.size(), nullptr);
  if (!(seconds >= 1)) return 1;
  return static_cast<int>(std::min<double>(seconds, kLongestSessionS));
}

class Server {
 public:
  explicit Server(const Options& options)
      : manifest_(checked(options)),
        key_(options.key.empty() ? manifest_.target : options.key),
        description_(describe_device(options.name.empty() ? host_name() : options.name)),
        runtime_(manifest_),
        tracker_(parse_address("--tracker", options.tracker), key_, options.reached_at),
        listening_(Socket::listen_on({options.listen, options.port})),
        door_(listening_),
        port_(listening_.port()) {
    std::printf("vitq-serve: listening on %s:%d for key %s of the tracker %s\n",
                options.listen.c_str(), port_, key_.c_str(), options.tracker.c_str());
    std::fflush(stdout);
  }

  void run() {
    bool complained = false;
    while (!is_over()) {
      try {
        tracker_.connect(port_);
        complained = false;
        serve_next();
      } catch (const Failure& failure) {
        tracker_.disconnect();
        if (!complained) say(std::string(failure.what()) + "; trying again");
        complained = true;
        if (!is_over()) sleep(kRetryS);
      }
    }
  }

 private:
  static void say(const std::string& line) {
    if (!line.empty()) std::fprintf(stderr, "vitq-serve: %s\n", line.c_str());
  }

  static Manifest checked(const Options& options) {
    Manifest manifest = read_manifest(options.bundle.empty() ? own_folder() : options.bundle);
    check_processor(manifest.architecture, manifest.cpu_needs, manifest.target);
    check_files(manifest, runtime_files());
    return manifest;
  }

  // Offers the device until somebody with the right word has been served. Failures are the tracker's.
  void serve_next() {
    std::string word = tracker_.offer(port_);
    int unused = 0;
    while (!is_over()) {
      Guest guest = door_.admit(word, kPingMs, is_over);
      if (guest.connection.is_open()) return serve(std::move(guest));
      if (is_over()) return;
      unused = tracker_.is_free(word) ? 0 : unused + 1;
      if (unused < kUnusedPings) continue;
      word = tracker_.offer(port_);
      unused = 0;
    }
  }

  void serve(Guest guest) {
    door_.clear();
    try {
      guest.connection.set_timeout(kHandshakeS);
      guest.connection.send_integer(kMagic);
      guest.connection.send_text("server:" + key_);
      guest.connection.set_timeout(0);
      say(serve_session(runtime_, description_, std::move(guest.connection),
                        limit_of(guest.greeting), is_over));
    } catch (const Failure& failure) {
      say(failure.what());
    }
  }

  const Manifest manifest_;
  const std::string key_, description_;
  const Runtime runtime_;
  Tracker tracker_;
  const Socket listening_;
  Door door_;
  const int port_;
};

void end(int) { over = 1; }

int run(int argc, char** argv) {
  Server server(parse(argc, argv));
  struct sigaction action;
  std::memset(&action, 0, sizeof action);
  action.sa_handler = end;  // without SA_RESTART: whatever waits returns
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaction(number, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  server.run();
  return kFine;
}

}  // namespace
}  // namespace vitq

int main(int argc, char** argv) {
  return vitq::run_program("vitq-serve", vitq::kUsage, vitq::run, argc, argv);
}
