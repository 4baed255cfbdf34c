// Charts come here.
