// level.cu for the CPU: what tests call.
#define EMULATED
#include "level.cu"

extern "C" long long arguments_size() { return (long long)sizeof(Arguments); }

// Returns 0 where the blocks waited for each other for ever.
extern "C" int launch_level(const Arguments* arguments, int blocks, int shared_bytes, unsigned seed, int absent) {
  const Arguments a = *arguments;
  return emulator::launch(blocks, LANES * a.across * a.down, (size_t)shared_bytes, {seed, absent},
                          [&] { solve_level(a); });
}
