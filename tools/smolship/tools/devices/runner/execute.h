// Executing a plan on an open session, and the result's JSON.
#pragma once

#include <functional>
#include <string>

#include "plan.h"

using Progress = std::function<void(const std::string& what, size_t done, size_t total)>;

// The result of a plan, as smolship.runtime.result reads it. `begun` is when the process began, by now().
std::string execute(const Plan& plan, const std::string& folder, double begun, const Progress& progress);
