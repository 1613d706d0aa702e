# make                 build everything into build/release
# make VARIANT=asan    the same under AddressSanitizer and UBSan (also: tsan)
# make check           tests/check.sh       make bench [NAMES=.. RUNS=..]   benchmarks
# make asan, make tsan  programs and unit tests of that variant (asan unit tests: tests/check.sh asan)
# make soak [SOAK_RUNS=50]  kill stages at random, again and again
# make chunks-soak          read files of a million chunks
# make gpu-check [NAMES=.. DEPS=..]  where a GPU is: checks, and figures beside PyTorch's (docs/gpu)
# make fuzz [COUNT=100000 SEED=1 SECONDS_MAX=3600]   the loader's reader on mutated files, under AddressSanitizer
# make lint docs help clean
#
# Explicit switches: VARIANT=release|asan|tsan, DEPS=directory with unpacked -dev packages,
# CHEMISTRY=1|0 with or without Open Babel for `prepare molecules` (1 where its headers are installed),
# WEB=1|0 with or without the web page (1 where libmicrohttpd's header is),
# HDF5_ALONE=1|0 HDF5 from its archive or from libhdf5.so (1 where the archive links without libcurl),
# CUDA=1|0 with or without the library for GPUs (1 where nvcc is), NVCC=, SM="75 80 90" what it is built for,
# V=1 shows every command.

.DEFAULT_GOAL := all
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules
VARIANT ?= release
DEPS ?=
CC := gcc
AR := ar
BUILD := build/$(VARIANT)
OBJ := $(BUILD)/obj
BIN := $(BUILD)/bin

FLAGS_release := -O2 -g1
FLAGS_asan := -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
FLAGS_tsan := -O1 -g1 -fsanitize=thread
CFLAGS := -std=gnu11 -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
          -Wno-missing-field-initializers -fno-strict-aliasing -fno-math-errno -ffp-contract=off \
          -D_GNU_SOURCE -I. $(FLAGS_$(VARIANT)) -pthread
# The arithmetic is worth more of the compiler's time. Nobody reads the flags of floating-point exceptions: without
# them a selection need not become a branch (values stay the same).
$(OBJ)/engine/%.o: CFLAGS += $(if $(filter release,$(VARIANT)),-O3) -fno-trapping-math
# Test cases, a third of all lines, are run a few times for each time they are compiled.
$(OBJ)/tests/unit/%.o: CFLAGS += -O1
LDFLAGS := $(FLAGS_$(VARIANT)) -pthread -Wl,--as-needed -Wl,-z,relro,-z,now

override DEPS := $(abspath $(DEPS))
PKG_CONFIG := pkg-config
ifneq ($(DEPS),)
# What `export` says does not reach $(shell) before make 4.4.
PKG_CONFIG := PKG_CONFIG_SYSROOT_DIR=$(DEPS) PKG_CONFIG_PATH=$(DEPS)/usr/lib/x86_64-linux-gnu/pkgconfig pkg-config
CFLAGS += -I$(DEPS)/usr/include -I$(DEPS)/usr/include/x86_64-linux-gnu
# The old tag, which libraries of libraries are looked up by as well.
LDFLAGS += -L$(DEPS)/usr/lib/x86_64-linux-gnu -L$(DEPS)/usr/lib \
           -Wl,--disable-new-dtags,-rpath,$(DEPS)/usr/lib/x86_64-linux-gnu:$(DEPS)/usr/lib
endif
# Debian 12 calls it msgpack (-lmsgpackc), Debian 13 msgpack-c (-lmsgpack-c): the first that is there.
package = $(or $(firstword $(foreach p,$(1),$(shell $(PKG_CONFIG) --exists $(p) && echo $(p)))),$(firstword $(1)))
HDF5 := $(call package,hdf5 hdf5-serial)
MSGPACK := $(call package,msgpack-c msgpack)
# H5_USE_110_API: what HDF5 1.14 and later call by other names keeps that of 1.10.
CFLAGS += -DH5_USE_110_API $(shell $(PKG_CONFIG) --cflags $(HDF5) $(MSGPACK))
# libhdf5.so needs libcurl and with it thirty libraries of which nothing is used here: a program that loads them takes
# three times as long to start and 1.5 MiB more. Where its archive links without them it is taken instead. That is tried
# once for an archive as it was installed, and again, with new programs, when another one is.
HDF5_AT := $(shell $(PKG_CONFIG) --libs-only-L $(HDF5))
HDF5_THERE := $(wildcard $(patsubst -L%,%/libhdf5.a,$(firstword $(HDF5_AT))))
HDF5_ALONE := 0
HDF5_TRIED := build/hdf5-$(if $(HDF5_THERE),$(shell stat -Lc %Z $(HDF5_THERE)),none).mk
-include $(HDF5_TRIED)
$(HDF5_TRIED): # nothing is kept where neither links: a compiler or the library is still to come
	@mkdir -p $(@D)
	@links() { echo 'int H5open(void); int main(void) { return H5open(); }' | \
	    $(CC) $(LDFLAGS) -x c - -x none -o $@.$$$$ "$$@" -lz -ldl -lm 2>/dev/null; }; \
	if links $(or $(HDF5_THERE),-l:none) -lsz; then alone=1; elif links $(HDF5_AT) -lhdf5; then alone=0; else exit 1; fi; \
	echo "HDF5_ALONE := $$alone" >$@.$$$$ && mv $@.$$$$ $@
# Under the sanitizers it stays the library: its own faults with hostile files are told by its name (tests/fuzz).
HDF5_ARCHIVE := $(if $(filter release1,$(VARIANT)$(HDF5_ALONE)),$(HDF5_THERE))
LIBS_PROTO := -lzmq $(shell $(PKG_CONFIG) --libs $(MSGPACK)) -lyaml -lnettle -ldeflate \
              $(if $(HDF5_ARCHIVE),-lsz -ldl,$(HDF5_AT) -lhdf5) -lz -lm
LIBS_ENGINE := -lm
# `prepare molecules` needs Open Babel, which is C++, and InChI.
CHEMISTRY_HEADERS := openbabel3/openbabel/mol.h inchi_api.h
CHEMISTRY_MISSING = $(filter-out $(wildcard $(CHEMISTRY_HEADERS:%=$(DEPS)/usr/include/%)),$(CHEMISTRY_HEADERS:%=$(DEPS)/usr/include/%))
CHEMISTRY ?= $(if $(CHEMISTRY_MISSING),0,$(if $(shell command -v g++),1,0))
# The web page needs libmicrohttpd.
WEB ?= $(if $(wildcard $(DEPS)/usr/include/microhttpd.h),1,0)
LIBS_PREPARE := $(if $(filter 1,$(CHEMISTRY)),-lopenbabel -linchi -lstdc++) -lzstd -lm

SOURCES_proto := $(wildcard proto/*.c)
SOURCES_engine := $(wildcard engine/*.c engine/layers/*.c engine/cpu/*.c)
# Kernels: libengine-cuda.so by nvcc, and the same sources for the CPU, which is what the tests run where there is no GPU.
NVCC ?= $(or $(shell command -v nvcc),$(wildcard /usr/local/cuda/bin/nvcc))
CUDA ?= $(if $(NVCC),1,0)
SM ?= 75 80 90
TOOLKITS := $(dir $(NVCC)).. /usr/local/cuda
CUPTI := $(if $(filter 1,$(CUDA)),$(firstword $(wildcard $(foreach t,$(TOOLKITS),$(t)/include/cupti.h $(t)/extras/CUPTI/include/cupti.h))))
CUDA_DEVICE := engine/cuda/device.cu engine/cuda/product.cu
SOURCES_cuda := $(wildcard engine/cuda/*.cu)
SOURCES_emulated := $(filter-out $(CUDA_DEVICE),$(SOURCES_cuda)) $(wildcard engine/cuda/*.cc)
SOURCES_loaderd := $(wildcard loaderd/*.c)
SOURCES_trainerd := $(wildcard trainerd/*.c)
SOURCES_fisherd := $(wildcard fisherd/*.c)
SOURCES_tap := $(wildcard monitord/tap*.c)
SOURCES_web := $(wildcard monitord/web*.c)
SOURCES_monitord := $(filter-out $(SOURCES_tap) $(SOURCES_web),$(wildcard monitord/*.c))
CHEMISTRY_0 := pipelines/prepare/molecule.c pipelines/prepare/skeleton.c \
               $(wildcard pipelines/prepare/molecule_*.c pipelines/prepare/*.cc) pipelines/prepare/molecules.c \
               pipelines/prepare/molecules_command.c \
               $(wildcard tests/unit/test_molecules*.c) tests/unit/test_fragments.c
CHEMISTRY_1 := pipelines/prepare/molecules_absent.c
SOURCES_prepare := $(filter-out $(CHEMISTRY_$(CHEMISTRY)),$(wildcard pipelines/prepare/*.c pipelines/prepare/*.cc))
SOURCES_unit := tests/test.c $(filter-out $(CHEMISTRY_$(CHEMISTRY)),$(wildcard tests/unit/*.c))

objects = $(patsubst %.cc,$(OBJ)/%.cc.o,$(patsubst %.c,$(OBJ)/%.o,$(SOURCES_$(1))))

DAEMONS := loaderd trainerd fisherd monitord
PROGRAMS := $(addprefix $(BIN)/,$(DAEMONS) tap prepare $(if $(filter 1,$(WEB)),web))

V ?= 0
SAY = $(if $(filter 0,$(V)),@printf '  %s\n' '$(1)';,)

.PHONY: all unit check asan tsan bench gpu-check soak chunks-soak fuzz lint docs clean help
all: $(PROGRAMS) $(if $(filter 1,$(CUDA)),$(BUILD)/lib/libengine-cuda.so)
unit: $(if $(CUPTI),$(BUILD)/lib/libkernel-times.so) $(BUILD)/lib/libengine-cuda-emulated.so $(BUILD)/lib/libnvidia-ml-fake.so $(BIN)/unit $(BIN)/engine_probe $(BIN)/device_probe $(BIN)/loader_probe $(BIN)/order_probe $(BIN)/fisher_probe $(BIN)/fuzz_reader

# The unit tests see every room's objects except the files that hold a main.
UNIT_ROOMS := $(filter-out %/main.o %/tap.o %/web.o %/web_http.o %/web_server.o,$(foreach d,$(DAEMONS) tap web prepare,$(call objects,$(d))))

$(BUILD)/libproto.a: $(call objects,proto)
	@rm -f $@ && $(AR) rcs $@ $^
$(BUILD)/libengine.a: $(call objects,engine)
	@rm -f $@ && $(AR) rcs $@ $^

$(BIN)/loaderd: $(call objects,loaderd) $(BUILD)/libproto.a
$(BIN)/trainerd: $(call objects,trainerd) $(BUILD)/libengine.a $(BUILD)/libproto.a
$(BIN)/fisherd: $(call objects,fisherd) $(BUILD)/libengine.a $(BUILD)/libproto.a
$(BIN)/monitord: $(call objects,monitord) $(BUILD)/libproto.a
$(BIN)/tap: $(call objects,tap) $(BUILD)/libproto.a
$(BIN)/web: $(call objects,web) $(patsubst %,$(OBJ)/monitord/%.o,history json sample stages) $(BUILD)/libproto.a
$(BIN)/prepare: $(call objects,prepare) $(BUILD)/libproto.a
$(BIN)/unit: $(call objects,unit) $(UNIT_ROOMS) $(BUILD)/libengine.a $(BUILD)/libproto.a

# the engine by itself, for comparisons with PyTorch (tests/reference, tests/bench)
$(BIN)/engine_probe: $(OBJ)/tests/reference/engine_probe.o $(BUILD)/libengine.a $(BUILD)/libproto.a
# a device by itself: its ceilings, the sweep over all parameters (tests/gpu)
$(BIN)/device_probe: $(OBJ)/tests/gpu/device_probe.o $(BUILD)/libengine.a $(BUILD)/libproto.a
# consumers of loaderd: one that does nothing with the rows (tests/bench), one that tells their order (tests/process)
$(BIN)/loader_probe: $(OBJ)/tests/bench/loader_probe.o $(BUILD)/libproto.a
$(BIN)/order_probe: $(OBJ)/tests/process/order_probe.o $(BUILD)/libproto.a

# the Fisher information to disk and back (tests/bench, tests/process)
$(BIN)/fisher_probe: $(OBJ)/tests/bench/fisher_probe.o $(filter-out %/main.o,$(call objects,fisherd)) $(BUILD)/libengine.a $(BUILD)/libproto.a

# the loader's reader on hostile files (tests/fuzz)
$(BIN)/fuzz_reader: $(OBJ)/tests/fuzz/fuzz_reader.o $(filter-out %/main.o,$(call objects,loaderd)) $(BUILD)/libproto.a

# A test counts what a step allocates.
$(BIN)/unit: LDFLAGS += -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc

# After the others: in its order among what is linked.
$(PROGRAMS) $(addprefix $(BIN)/,unit engine_probe device_probe loader_probe order_probe fisher_probe fuzz_reader): $(HDF5_ARCHIVE) $(HDF5_TRIED)

# What the libraries for devices need of the engine they find in the program that opens them.
$(BIN)/trainerd $(BIN)/fisherd $(BIN)/unit $(BIN)/engine_probe $(BIN)/device_probe: LDFLAGS += -rdynamic

GENCODE := $(foreach sm,$(SM),-gencode arch=compute_$(sm),code=sm_$(sm)) \
           -gencode arch=compute_$(lastword $(SM)),code=compute_$(lastword $(SM))
NVCCFLAGS := -std=c++14 -DCUDA_NO_HALF -DCUDA_LEAST_CAPABILITY=$(firstword $(sort $(SM))) -DCUDA_MOST_CAPABILITY=$(lastword $(SM)) -O3 --Werror all-warnings --fmad=true -I. $(GENCODE) -Xcompiler -fPIC,-Wall,-Wextra,-Wno-missing-field-initializers
# The same for every variant, and the dearest: made once.
OBJ_CUDA := build/cuda
$(OBJ_CUDA)/%.cu.o: %.cu Makefile
	@mkdir -p $(@D)
	$(call SAY,NVCC $<)$(NVCC) $(NVCCFLAGS) -MMD -MP -MF $(@:.o=.d) -MT $@ -c -o $@.$$$$.o $< && mv $@.$$$$.o $@
$(BUILD)/lib/libengine-cuda.so: $(patsubst %,$(OBJ_CUDA)/%.o,$(SOURCES_cuda))
	@mkdir -p $(@D)
	$(call SAY,LINK $@)$(NVCC) -shared -o $@ $^ -cudart static -lcublas -lcublasLt -lcuda $(if $(wildcard $(dir $(NVCC))../lib64/stubs),-L$(dir $(NVCC))../lib64/stubs)

# When each kernel of a program ran (tests/gpu), where the toolkit has CUPTI.
$(BUILD)/lib/libkernel-times.so: tests/gpu/kernel_times.c Makefile
	@mkdir -p $(@D)
	$(call SAY,CC $@)$(CC) $(CFLAGS) -fPIC -shared $(patsubst %,-isystem %,$(dir $(CUPTI)) $(TOOLKITS:%=%/include)) -o $@ $< $(patsubst %,-L%/lib64,$(dir $(CUPTI)).. $(TOOLKITS)) -lcupti

# What the driver's management library would tell of an emulated GPU.
$(BUILD)/lib/libnvidia-ml-fake.so: tests/fake_nvml.c Makefile
	@mkdir -p $(@D)
	$(call SAY,CC $(VARIANT) $<)$(CC) $(CFLAGS) -fPIC -shared -o $@ $<

EMULATED := $(patsubst %,$(OBJ)/emulated/%.o,$(SOURCES_emulated))
CXXFLAGS := -std=gnu++14 -Wall -Wextra -Werror -Wno-missing-field-initializers -fno-strict-aliasing -fno-math-errno \
            -ffp-contract=off -fPIC -D_GNU_SOURCE -DCUDA_EMULATED -I. $(FLAGS_$(VARIANT)) -pthread
$(OBJ)/emulated/%.cu.o: %.cu Makefile
	@mkdir -p $(@D)
	$(call SAY,CXX $(VARIANT) $<)g++ $(CXXFLAGS) -MMD -MP -MF $(@:.o=.d) -x c++ -c -o $@ $<
$(OBJ)/emulated/%.cc.o: %.cc Makefile
	@mkdir -p $(@D)
	$(call SAY,CXX $(VARIANT) $<)g++ $(CXXFLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
$(BUILD)/lib/libengine-cuda-emulated.so: $(EMULATED)
	@mkdir -p $(@D)
	$(call SAY,LINK $@)g++ -shared $(FLAGS_$(VARIANT)) -o $@ $^

$(BIN)/%:
	@mkdir -p $(@D)
	$(call SAY,LINK $@)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(if $(filter %libengine.a,$^),$(LIBS_ENGINE)) $(if $(filter %/prepare/lines.o,$^),$(LIBS_PREPARE)) $(if $(filter %/web_http.o,$^),-lmicrohttpd) $(LIBS_PROTO)

$(OBJ)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call SAY,CC $(VARIANT) $<)$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

# The page is inside the program (web_pages.c).
$(OBJ)/monitord/web_pages.o: $(wildcard monitord/web.html monitord/web.css monitord/web.js)

# Open Babel's headers are not held to our warnings.
CXXFLAGS_CHEMISTRY := -std=gnu++14 -Wall -Wextra -Werror -D_GNU_SOURCE -I. -isystem $(DEPS)/usr/include/openbabel3 $(FLAGS_$(VARIANT)) -pthread
# It looks for its reader of SMILES where it was built to be installed; in an unpacked installation, where that holds it.
BABEL_PLUGINS := $(if $(DEPS),$(patsubst %/smilesformat.so,%,$(firstword $(wildcard $(DEPS)/usr/lib/x86_64-linux-gnu/openbabel/*/smilesformat.so))))
CXXFLAGS_CHEMISTRY += $(BABEL_PLUGINS:%=-DBABEL_PLUGINS='"%"')
$(OBJ)/pipelines/prepare/%.cc.o: pipelines/prepare/%.cc Makefile
	@mkdir -p $(@D)
	$(call SAY,CXX $(VARIANT) $<)g++ $(CXXFLAGS_CHEMISTRY) -MMD -MP -c -o $@ $<

check:
	./tests/check.sh
asan tsan:
	$(MAKE) VARIANT=$@ all unit
bench: all $(BIN)/engine_probe $(BIN)/loader_probe $(BIN)/fisher_probe
	pipelines/setup.sh bench
	/usr/bin/python3 tests/bench/bench.py --names "$(NAMES)" --runs "$(RUNS)"
gpu-check:
	DEPS="$(DEPS)" tests/gpu/run_on_device.sh "$(NAMES)"
soak: all
	/usr/bin/python3 tests/soak/kill_soak.py $(SOAK_RUNS)

chunks-soak: all unit
	/usr/bin/python3 tests/soak/chunks_soak.py
fuzz:
	/usr/bin/python3 tests/fuzz/fuzz.py $(COUNT) $(SEED) $(SECONDS_MAX)
lint:
	./tests/check.sh lint
docs: $(BIN)/prepare $(BIN)/tap $(BIN)/trainerd $(BIN)/web
	$(BIN)/prepare options-reference > docs/OPTIONS.md
	$(BIN)/tap --messages-reference > docs/MESSAGES.md
	$(BIN)/trainerd --layers-reference > docs/LAYERS.md
	$(BIN)/web --metrics-reference > docs/METRICS.md
clean:
	rm -rf build
help:
	@sed -n '/^# make/,/^$$/s/^# \{0,1\}//p' Makefile

NAMES ?=
RUNS ?= 3
SOAK_RUNS ?= 50
COUNT ?= 100000
SEED ?= 1
SECONDS_MAX ?= 3600

-include $(shell find $(OBJ) $(OBJ_CUDA) -name '*.d' 2>/dev/null)
