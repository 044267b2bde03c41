// What goes wrong is one line on stderr and one of these exit codes.
#ifndef VITQ_FAILURE_H_
#define VITQ_FAILURE_H_

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

namespace vitq {

enum ExitCode : int {
  kFine = 0,
  kDifferent = 1,    // verify: an integer is not the golden one
  kMistake = 2,      // a wrong option, an unreadable input, a file that is not the bundle's
  kWrongDevice = 3,  // this processor lacks what the model was compiled for
  kLost = 4,         // the output could not be written
};

class Failure : public std::runtime_error {
 public:
  explicit Failure(const std::string& line, ExitCode exit_code = kMistake)
      : std::runtime_error(printable(line)), code(exit_code) {}
  const ExitCode code;

 private:
  // Names and contents of files may hold anything; a message stays one line of a terminal.
  static std::string printable(std::string line) {
    for (char& c : line) {
      if (static_cast<unsigned char>(c) < ' ' || c == 0x7F) c = '?';
    }
    return line;
  }
};

inline int report(const char* name, const char* line, int code) {
  std::fprintf(stderr, "%s: %s\n", name, line);
  return code;
}

// What main returns: usage if it is asked for, else what run does, failures reported. What was
// printed has arrived, or that is the failure.
inline int run_program(const char* name, const char* usage, int (*run)(int, char**), int argc,
                       char** argv) {
  // A closed descriptor would be given to the next file that is opened, and written to.
  if (fcntl(STDERR_FILENO, F_GETFD) < 0 && open("/dev/null", O_WRONLY) < 0) return kLost;
  if (fcntl(STDOUT_FILENO, F_GETFD) < 0) return report(name, "standard output is closed", kLost);
  int code = kFine;
  try {
    if (argc > 1 && (!std::strcmp(argv[1], "--help") || !std::strcmp(argv[1], "-h"))) {
      std::fputs(usage, stdout);
    } else {
      code = run(argc, argv);
    }
  } catch (const Failure& failure) {
    return report(name, failure.what(), failure.code);
  } catch (const std::bad_alloc&) {
    return report(name, "not enough memory", kMistake);
  } catch (const std::exception& error) {
    return report(name, error.what(), kMistake);
  }
  const bool was_written = !std::ferror(stdout) && std::fflush(stdout) == 0;
  if (was_written && close(STDOUT_FILENO) == 0) return code;
  return report(name, "the output could not be written", kLost);
}

}  // namespace vitq

#endif  // VITQ_FAILURE_H_
