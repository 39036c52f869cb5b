"""RunPod's Hub looks for a file of this name. The worker is the program llamagate, which takes jobs by itself."""

import os

os.execvp("llamagate", ["llamagate", "serve"])
