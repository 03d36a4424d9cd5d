// Executing a plan on an open session, and the result's JSON.
#pragma once

#include <functional>
#include <string>

#include "plan.h"

using Progress = std::function<void(const std::string& what, size_t done, size_t total)>;
using Tokens = std::function<void(int32_t id)>;

// The result of a plan, as smolship.runtime.result reads it. `begun` is when the process began, by now(); `tell` gets
// each token of an answer as it is chosen.
std::string execute(const Plan& plan, const std::string& folder, double begun, const Progress& progress,
                    const Tokens& tell);
