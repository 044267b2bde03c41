#include "session.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "description.h"
#include "failure.h"
#include "timing.h"

namespace vitq {
namespace {

constexpr int kPollMs = 500;
constexpr int kTimingArguments = 7;  // of vitq.time, before the tensors

// What the client may call beside the functions of TVM's runtime.
class Session {
 public:
  Session(const Runtime& runtime, std::string description, std::string folder)
      : runtime_(runtime), description_(std::move(description)), folder_(std::move(folder)) {}

  void define_functions() {
    runtime_.define("tvm.rpc.server.workpath", work_path, this);
    runtime_.define("tvm.rpc.server.load_module", load_module, this);
    runtime_.define("vitq.device", device, this);
    runtime_.define("vitq.time", time, this);
    runtime_.define("vitq.memory", memory, this);
  }

 private:
  std::string path_of(const TVMFFIAny& value) const {
    const std::string name = text_of(value);
    if (name.empty() || name[0] == '.' || name.find('/') != std::string::npos) {
      throw Failure("give a plain file name");
    }
    return folder_ + "/" + name;
  }

  // Runs `body`, which gives the answer; an exception becomes the client's error.
  template <typename Body>
  static int answer(void* self, TVMFFIAny* result, Body body) {
    const auto* session = static_cast<const Session*>(self);
    try {
      *result = body(*session);
      return 0;
    } catch (const std::exception& error) {
      return session->runtime_.fail(error.what());
    }
  }

  static void require(bool enough) {
    if (!enough) throw Failure("too few arguments");
  }

  static int work_path(void* self, const TVMFFIAny* args, int32_t count, TVMFFIAny* result) {
    return answer(self, result, [=](const Session& session) {
      require(count >= 1);
      return session.runtime_.owned_text(session.path_of(args[0]));
    });
  }

  static int load_module(void* self, const TVMFFIAny* args, int32_t count, TVMFFIAny* result) {
    return answer(self, result, [=](const Session& session) {
      require(count >= 1);
      return session.runtime_.load_module(session.path_of(args[0]));
    });
  }

  static int device(void* self, const TVMFFIAny*, int32_t, TVMFFIAny* result) {
    return answer(self, result, [](const Session& session) {
      return session.runtime_.owned_text(session.description_);
    });
  }

  static int memory(void* self, const TVMFFIAny*, int32_t, TVMFFIAny* result) {
    return answer(self, result, [](const Session&) { return of_integer(peak_bytes()); });
  }

  // (library, kernel, budget_s, blocks, min_rounds, copies, constants, tensors...) -> seconds
  static int time(void* self, const TVMFFIAny* args, int32_t count, TVMFFIAny* result) {
    return answer(self, result, [=](const Session& session) {
      require(count > kTimingArguments);
      const TimingPlan plan{number_of(args[2]), integer_of(args[3]), integer_of(args[4]),
                            integer_of(args[5]), integer_of(args[6])};
      std::vector<DLTensor*> tensors;
      for (int i = kTimingArguments; i < count; ++i) tensors.push_back(tensor_of(args[i]));
      return of_number(time_kernel(session.runtime_, session.path_of(args[0]), text_of(args[1]),
                                   plan, tensors));
    });
  }

  const Runtime& runtime_;
  const std::string description_, folder_;
};

std::string make_folder() {
  const char* base = std::getenv("TMPDIR");
  std::string path = std::string(base && *base ? base : "/tmp") + "/vitq-serve.XXXXXX";
  if (!mkdtemp(&path[0])) throw Failure(path + " cannot be made");
  return path;
}

[[noreturn]] void run_session(const Runtime& runtime, const std::string& description,
                              const std::string& folder, int connection) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGINT, SIG_IGN);
  signal(SIGTERM, SIG_DFL);
  int code = kMistake;
  try {
    if (chdir(folder.c_str()) != 0) throw Failure(folder + " cannot be entered");
    Session session(runtime, description, folder);
    session.define_functions();
    runtime.call(runtime.global("rpc.ServerLoop"), {of_integer(connection)});
    code = kFine;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "vitq-serve: %s\n", error.what());
  }
  std::fflush(nullptr);
  _exit(code);
}

// Waits for the session's end: the pipe's other end is in its processes only.
bool is_ended(int pipe, int limit_s, bool (*is_over)()) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::seconds(limit_s);
  pollfd wanted{pipe, POLLIN, 0};
  while (!is_over() && Clock::now() < end) {
    if (poll(&wanted, 1, kPollMs) > 0) return true;
  }
  return false;
}

std::string last_words(int status, bool ended, int limit_s, bool over) {
  if (!ended && over) return "";
  if (!ended) return "a session was ended after its limit of " + std::to_string(limit_s) + " s";
  if (WIFSIGNALED(status)) {
    return std::string("a session died: ") + strsignal(WTERMSIG(status));
  }
  return "";
}

}  // namespace

std::string serve_session(const Runtime& runtime, const std::string& description, Socket connection,
                          int limit_s, bool (*is_over)()) {
  const std::string folder = make_folder();
  int ends[2];
  if (pipe(ends) != 0) throw Failure("no pipe");
  const pid_t process = fork();
  if (process == 0) {
    close(ends[0]);
    run_session(runtime, description, folder, connection.descriptor());
  }
  close(ends[1]);
  connection.close();  // now only the session's process holds it: its death is the client's news
  const bool ended = process > 0 && is_ended(ends[0], limit_s, is_over);
  close(ends[0]);
  int status = 0;
  if (process > 0) {
    kill(-process, SIGKILL);
    kill(process, SIGKILL);
    waitpid(process, &status, 0);
  }
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  return process > 0 ? last_words(status, ended, limit_s, is_over()) : "no process for a session";
}

}  // namespace vitq
