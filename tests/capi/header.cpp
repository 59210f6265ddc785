// The header is C++ too.
#include "parnet_deploy.h"

int main() {
  parnet_options options = PARNET_OPTIONS_DEFAULT;
  parnet_runtime* runtime = nullptr;
  options.slots = 2;
  return parnet_open(nullptr, &options, &runtime) == PARNET_INPUT ? 0 : 1;
}
